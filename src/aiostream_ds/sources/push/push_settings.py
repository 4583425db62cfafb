"""The settings of the source `push`: what is taken, from whom, and how much of it."""

from typing import Annotated, Literal

from msgspec import Meta

from aiostream_ds.settings import section
from aiostream_ds.sources.decoding import DecodingSettings
from aiostream_ds.sources.form_sections import ADVANCED
from aiostream_ds.stores.sqlite_file import Sync

__all__ = ["PushRole", "PushSettings"]

_LIMITS = section("Limits")

PushRole = Literal["Viewer", "Editor", "Admin", "none"]


class PushSettings(DecodingSettings):
    """What may be pushed, and by whom."""

    max_message: Annotated[int, Meta(ge=1_000, le=48_000_000), _LIMITS] = 4_000_000
    """Maximum bytes of a body, before and after its decompression."""
    directory: Annotated[str, Meta(examples=["/var/lib/grafana/pushed"])] = ""
    """The directory that keeps the rows; it is made if it does not exist. Without one, they are in
    memory, and are lost when the plugin ends."""
    sync: Annotated[Sync, ADVANCED] = "normal"
    """What an answer waits for. normal: the operating system; a crash of Grafana or of the plugin
    loses nothing that was acknowledged, a power cut may. full: the disk."""
    keep_days: Annotated[float, Meta(gt=0)] = 30.0
    """Days for which a row is kept, since it was pushed."""
    keep_rows: Annotated[int, Meta(ge=1)] = 10_000_000
    """Rows of a channel that are kept: the newest ones."""
    keep_bytes: Annotated[int, Meta(ge=100_000)] = 4_000_000_000
    """Bytes of all channels that are kept. In memory it is at most 256 MB."""
    share: Annotated[bool, ADVANCED] = False
    """Share the rows with the other Grafana servers of a cluster, as `cluster_url` in grafana.ini
    describes: what is pushed at one server is stored, and seen, on all."""
    push_role: PushRole = "Editor"
    """The least role of users and service accounts that may push; none: only those of `pushLogins`
    may."""
    push_logins: Annotated[list[str], Meta(examples=[["sa-1-lab"]])] = []
    """Logins that may push whatever their role. That of a service account is in its page in
    Grafana, such as sa-1-lab."""
    push_paths: Annotated[
        dict[str, list[str]], Meta(examples=[{"lab/{name:rest}": ["sa-1-lab"]}])
    ] = {}
    """Logins and roles by patterns of paths: only they may push to a path that matches. A name of a
    role means the role. Without a pattern that matches, everybody may who may push at all."""
    rows_per_second: Annotated[int, Meta(ge=0), _LIMITS] = 100_000
    """Rows per second that are taken, averaged over some seconds; 0: no limit."""
    bytes_per_second: Annotated[int, Meta(ge=0), _LIMITS] = 50_000_000
    """Bytes of bodies per second that are taken, averaged over some seconds; 0: no limit."""
    max_channels: Annotated[int, Meta(ge=1), _LIMITS] = 1_000
    """Channels that there may be; a push to a further one is refused."""
