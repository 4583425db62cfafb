"""A data source with every kind of field, for the tests of forms and for their pictures.

The `describe`d document of it is what the editors are tried with, in Python and in a browser;
`python -m tests.kinds` writes it.
"""

import sys
from datetime import datetime
from enum import Enum
from typing import Annotated, Literal

import anyio
import msgspec
from msgspec import Meta, Struct

from aiostream_ds import DataSource, Frame, Query, Rows, Secret, Settings, query, secret, stream


class Retries(Struct, rename="camel", frozen=True, kw_only=True):
    """How often is tried again."""

    times: Annotated[int, Meta(ge=0, le=20)] = 3
    """After so many the stream reports an error."""
    first_wait: Annotated[float, Meta(gt=0, le=60, description="Seconds; doubled each time")] = 0.5


class Password(
    Struct, rename="camel", frozen=True, kw_only=True, tag="password", tag_field="method"
):
    """A name, and the password below"""

    user: str
    realm: str | None = None


class Token(Struct, rename="camel", frozen=True, kw_only=True, tag="token", tag_field="method"):
    """A token in a header"""

    header: str = "Authorization"


class Anonymous(Struct, frozen=True, kw_only=True, tag="anonymous", tag_field="method"):
    """No one in particular"""


class Proxy(Struct, rename="camel", frozen=True, kw_only=True):
    """A proxy on the way."""

    host: Annotated[str, Meta(examples=["proxy.example.com"])]
    port: Annotated[int, Meta(ge=1, le=65535)] = 3128


class Rename(Struct, rename="camel", frozen=True, kw_only=True):
    """A topic under another name."""

    topic: str
    shown_as: str


class Compression(Enum):
    """How messages are packed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


class KindsSettings(Settings):
    """Every kind of field."""

    keep_alive: Annotated[int, Meta(ge=1, le=600)] = 60
    """Seconds between two signs of life."""
    url: Annotated[str, Meta(pattern=r"^mqtts?://", examples=["mqtt://broker.example.com:1883"])]
    """Where the broker listens."""
    verify: bool = True
    """Whether its certificate is checked."""
    qos: Literal["at most once", "at least once", "exactly once"] = "at least once"
    """What the broker promises for each message."""
    compression: Compression = Compression.NONE
    topics: tuple[str, ...] = ("sensors/#",)
    """What is subscribed to."""
    client_id: str | None = None
    """Left empty, the broker gives one."""
    labels: dict[str, str] = {}
    """Put on every series."""
    login: Password | Token | Anonymous = Anonymous()
    """How this plugin says who it is."""
    password: Secret = secret()
    certificate: Annotated[Secret, Meta(extra_json_schema={"multiline": True})] = secret()
    """The client's, in PEM."""
    retries: Retries = Retries()
    proxy: Proxy | None = None
    """On the way to the broker."""
    renamed: list[Rename] = []
    greeting: Annotated[str, Meta(extra_json_schema={"multiline": True})] = ""
    """Sent once, when the connection is made."""


class Compare(Query):
    """Two topics side by side."""

    topics: tuple[str, ...] = ()
    smooth: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """0 leaves the rows as they are."""
    how: Literal["difference", "ratio"] = "difference"
    since: datetime | None = None
    strict: bool = False
    weights: dict[str, float] = {}
    depth: tuple[int, int] = (0, 1)


class Kinds(DataSource[KindsSettings]):
    """Messages of a broker."""

    @stream("topic/{site}/{sensor:any}/{hz:int}")
    async def topic(
        self,
        site: Annotated[str, Meta(description="Where it stands")],
        sensor: Annotated[str, Meta(description="As the broker calls it")],
        hz: Annotated[int, Meta(ge=1, le=100, description="Rows a second", title="Rate")] = 1,
    ) -> Rows:
        """The messages of one sensor."""
        while True:
            yield {"value": 0.0, "of": f"{site}/{sensor}"}
            await anyio.sleep(1 / hz)

    @topic.suggest("site")
    async def sites(self, typed: str) -> list[str]:
        """Sites whose name contains what was typed."""
        return [name for name in ("berlin", "bern", "paris") if typed in name]

    @topic.suggest("sensor")
    async def sensors(self, typed: str, site: str | None) -> list[str]:
        """Sensors of the chosen site."""
        return [name for name in (f"{site}: oven", f"{site}: roof") if typed in name]

    @stream("alive")
    async def alive(self) -> Rows:
        """Signs of life of the broker."""
        while True:
            yield {"alive": True}
            await anyio.sleep(1)

    @query("compare")
    async def compare(self, q: Compare) -> list[Frame]:
        """Two topics side by side."""
        return [Frame.from_rows([{"how": q.how}])]


if __name__ == "__main__":
    from aiostream_ds._grafana.catalog import Catalog
    from aiostream_ds._grafana.forms import describe

    sys.stdout.buffer.write(msgspec.json.encode(describe(Catalog(Kinds))))
