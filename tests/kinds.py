"""A data source with every kind of field, for the tests and screenshots of forms.

`python -m tests.kinds` writes its document, with which the editors are tested.
"""

import sys
from datetime import datetime
from enum import Enum
from typing import Annotated, Literal

import anyio
import msgspec
from msgspec import Meta, Struct

from aiostream_ds import (
    DataSource,
    Frame,
    Query,
    Rows,
    Secret,
    Settings,
    query,
    secret,
    section,
    stream,
)

ADVANCED = section("Advanced")


class Retries(Struct, rename="camel", frozen=True, kw_only=True):
    """How often a failed connection is retried."""

    times: Annotated[int, Meta(ge=0, le=20)] = 3
    """After this many retries the stream reports an error."""
    first_wait: Annotated[float, Meta(gt=0, le=60, description="Seconds; doubled each time")] = 0.5


class Password(
    Struct, rename="camel", frozen=True, kw_only=True, tag="password", tag_field="method"
):
    """A user name and the password"""

    user: str
    realm: str | None = None


class Token(Struct, rename="camel", frozen=True, kw_only=True, tag="token", tag_field="method"):
    """A token in an HTTP header"""

    header: str = "Authorization"


class Anonymous(Struct, frozen=True, kw_only=True, tag="anonymous", tag_field="method"):
    """Without a login"""


class Proxy(Struct, rename="camel", frozen=True, kw_only=True):
    """An HTTP proxy."""

    host: Annotated[str, Meta(examples=["proxy.example.com"])]
    port: Annotated[int, Meta(ge=1, le=65535)] = 3128


class Rename(Struct, rename="camel", frozen=True, kw_only=True):
    """A topic and its displayed name."""

    topic: str
    shown_as: str


class Compression(Enum):
    """The compression of messages."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


class KindsSettings(Settings):
    """Every kind of field."""

    keep_alive: Annotated[int, Meta(ge=1, le=600)] = 60
    """Seconds between two keep-alive messages."""
    url: Annotated[str, Meta(pattern=r"^mqtts?://", examples=["mqtt://broker.example.com:1883"])]
    """The broker's address."""
    verify: bool = True
    """Whether to verify the broker's certificate."""
    qos: Literal["at most once", "at least once", "exactly once"] = "at least once"
    """The delivery guarantee of the broker."""
    compression: Compression = Compression.NONE
    topics: tuple[str, ...] = ("sensors/#",)
    """The topics to subscribe to."""
    client_id: Annotated[str | None, ADVANCED] = None
    """If empty, the broker assigns one."""
    labels: dict[str, str] = {}
    """Labels of every series."""
    login: Password | Token | Anonymous = Anonymous()
    """How the plugin logs in."""
    password: Secret = secret()
    certificate: Annotated[
        Secret, Meta(extra_json_schema={"multiline": True}), section("TLS certificates")
    ] = secret()
    """The client certificate in PEM format."""
    retries: Annotated[Retries, ADVANCED] = Retries()
    proxy: Proxy | None = None
    """The proxy to the broker."""
    renamed: list[Rename] = []
    greeting: Annotated[str, Meta(extra_json_schema={"multiline": True}), ADVANCED] = ""
    """Sent once after connecting."""


class Compare(Query):
    """Compares two topics."""

    topics: tuple[str, ...] = ()
    smooth: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """0 means no smoothing."""
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
        site: Annotated[str, Meta(description="The sensor's site")],
        sensor: Annotated[str, Meta(description="The sensor's name at the broker")],
        hz: Annotated[int, Meta(ge=1, le=100, description="Rows a second", title="Rate")] = 1,
    ) -> Rows:
        """The messages of one sensor."""
        while True:
            yield {"value": 0.0, "of": f"{site}/{sensor}"}
            await anyio.sleep(1 / hz)

    @topic.suggest("site")
    async def sites(self, typed: str) -> list[str]:
        """Sites whose name contains the typed string."""
        return [name for name in ("berlin", "bern", "paris") if typed in name]

    @topic.suggest("sensor")
    async def sensors(self, typed: str, site: str | None) -> list[str]:
        """Sensors of the chosen site."""
        return [name for name in (f"{site}: oven", f"{site}: roof") if typed in name]

    @stream("alive")
    async def alive(self) -> Rows:
        """Heartbeats of the broker."""
        while True:
            yield {"alive": True}
            await anyio.sleep(1)

    @query("compare")
    async def compare(self, q: Compare) -> list[Frame]:
        """Compares two topics."""
        return [Frame.from_rows([{"how": q.how}])]


if __name__ == "__main__":
    from aiostream_ds._grafana.catalog import Catalog
    from aiostream_ds._grafana.forms import describe

    sys.stdout.buffer.write(msgspec.json.encode(describe(Catalog(Kinds))))
