"""Access checks: a matrix of users, paths and calls, and attempts to get around them."""

import logging

import anyio
import msgspec
import pytest

from aiostream_ds import (
    Allow,
    Cursor,
    DataSource,
    Frame,
    HistoryRange,
    LiveChannel,
    PermissionDenied,
    Query,
    Row,
    Rows,
    User,
    query,
    resource,
    stream,
)
from aiostream_ds._grafana.catalog import Catalog
from aiostream_ds._grafana.forms import describe
from aiostream_ds.testing import QueryFailed, Refused, serve_in_memory

pytestmark = pytest.mark.virtual

ANN = User(login="ann", role="Viewer")
BEN = User(login="ben", role="Editor")
EVE = User(login="eve", role="Viewer")
BOSS = User(login="boss", role="Admin")
USERS = {"ann": ANN, "ben": BEN, "eve": EVE, "boss": BOSS, "nobody": None}

STAFF = Allow(roles=("Editor", "Admin"))
LISTED = Allow(logins=("ann",), paths=("areas/kitchen", "areas/hall/{n:int}"))


class Line(Row):
    time: int
    n: int


class House(DataSource):
    """Streams with each kind of permission."""

    @stream("open/{id}")
    async def open(self, id: str):
        yield {"n": 1}
        await anyio.sleep_forever()

    @stream("areas/{p:rest}", allow=[STAFF, LISTED])
    async def areas(self, p: str):
        yield {"n": 1}
        await anyio.sleep_forever()

    @areas.publish
    async def switch(self, data: int, p: str) -> str:
        return "done"

    @stream("readonly", allow=[Allow(roles=("Viewer",), actions=("read",)), STAFF])
    async def readonly(self):
        yield {"n": 1}
        await anyio.sleep_forever()

    @readonly.publish
    async def write(self, data: int) -> str:
        return "written"

    @stream("own/{me:user}/{box}")
    async def own(self, me: str, box: str):
        yield {"whose": me}
        await anyio.sleep_forever()

    @own.history
    async def mine(self, history_range: HistoryRange, me: str, box: str) -> list[dict]:
        return [{"time": 1_700_000_000_000, "whose": me}]

    @stream("both/{id}", allow=[Allow(roles=("Viewer",))])
    async def both(self, id: str):
        yield {"n": 1}
        await anyio.sleep_forever()

    @both.subscribe
    async def hook(self, user: User | None, id: str) -> None:
        if user is None or user.login != id:
            raise PermissionDenied("refused by the hook")

    @stream("log/{id}", cursor="n", allow=[STAFF])
    async def log(self, after: Cursor, id: str) -> Rows[Line]:
        await anyio.sleep_forever()
        yield Line(0, 0)

    @log.history
    async def lines(self, history_range: HistoryRange, id: str) -> list[Line]:
        return [Line(1_700_000_000_000, 1)]

    @query
    async def around(self, query: Query) -> LiveChannel:
        return LiveChannel(House.areas, p="cellar")


def may(user, path):
    """The expected result of the rules above."""
    if path.startswith("open/"):
        return True
    if path.startswith("areas/"):
        known = ("areas/kitchen", "areas/hall/1", "areas/hall/2")
        return user in ("ben", "boss") or (user == "ann" and path in known)
    if path == "readonly":
        return user != "nobody"
    if path.startswith("own/"):
        return path == f"own/{own(user)}/inbox"
    if path.startswith("both/"):
        return user in ("ann", "eve") and path == f"both/{user}"
    if path.startswith("log/"):
        return user in ("ben", "boss")
    raise AssertionError(path)


def own(login):
    return {"ann": "YW5u", "ben": "YmVu", "eve": "ZXZl", "boss": "Ym9zcw"}.get(login)


PATHS = [
    "open/a",
    "areas/kitchen",
    "areas/hall/1",
    "areas/hall/x",
    "areas/kitchen/drawer",
    "areas/cellar",
    "readonly",
    "own/YW5u/inbox",
    "own/ZXZl/inbox",
    "both/ann",
    "both/eve",
    "log/a",
]


async def can(call):
    try:
        await call
    except Refused as refused:
        assert refused.status == "PERMISSION_DENIED"
        return False
    except QueryFailed as failed:
        assert failed.status == 403
        return False
    return True


def query_of(path):
    name, _, rest = path.partition("/")
    field = {"open": "id", "both": "id", "log": "id", "areas": "p"}.get(name)
    return {"queryType": name} | ({field: rest} if field else {})


async def rows(grafana, path, user):
    answer = await grafana.resource(f"replay/rows?path={path}&after=-1", user=user)
    assert answer.status in (200, 403), answer.body
    return answer.status == 200


@pytest.mark.diagonal
@pytest.mark.parametrize("name", USERS)
@pytest.mark.parametrize("path", PATHS)
async def test_every_call_makes_the_same_decision(name, path):
    user, expected = USERS[name], may(name, path)
    async with serve_in_memory(House) as grafana:
        calls = {
            "stock": await can(grafana.follow(path, user)),
            "exact": await can(grafana.follow(f"x/{path}", user)),
            "rows": await rows(grafana, path, user),
            "rows of x/": await rows(grafana, f"x/{path}", user),
        }
        if not path.startswith("own/"):
            ask = query_of(path)
            calls["history"] = await can(grafana.query(ask, user=user))
            calls["exact history"] = await can(grafana.query({**ask, "exact": True}, user=user))
        assert calls == dict.fromkeys(calls, expected)


SPELLINGS = [
    "/areas/cellar",
    "areas//cellar",
    "areas/cellar/",
    "Areas/cellar",
    "areas/./cellar",
    "areas/kitchen/../cellar",
    "areas%2Fcellar",
    "areas/cellar?",
    "x/x/areas/cellar",
    "X/areas/cellar",
    "x//areas/cellar",
    "own/YW5v/inbox",
    "own/YW5u=/inbox",
    "own/ann/inbox",
    "own//inbox",
    "own/YW5uCg/inbox",
    "own/QU5O/inbox",
    "areas/hall/01",
    "areas/hall/+1",
    "both/./ann",
    "both/Ann",
]


@pytest.mark.diagonal
@pytest.mark.parametrize("path", SPELLINGS)
@pytest.mark.parametrize("user", [ANN, EVE, None], ids=["ann", "eve", "nobody"])
async def test_no_other_spelling_of_a_path_can(path, user):
    async with serve_in_memory(House) as grafana:
        for each in (path, f"x/{path}"):
            with pytest.raises(Refused):
                await grafana.follow(each, user)
            answer = await grafana.resource(f"replay/rows?path={each}&after=-1", user=user)
            assert answer.status in (400, 403, 404)
            with pytest.raises(Refused):
                await grafana.publish(each, 1, user)


@pytest.mark.parametrize("name", USERS)
async def test_an_authors_query_checks_the_channel_that_it_returns(name):
    async with serve_in_memory(House) as grafana:
        permitted = await can(grafana.query({"queryType": "around"}, user=USERS[name]))
        assert permitted == may(name, "areas/cellar")


@pytest.mark.parametrize("name", USERS)
async def test_rules_may_name_the_action_publish(name):
    user = USERS[name]
    async with serve_in_memory(House) as grafana:
        staff = name in ("ben", "boss")
        assert await can(grafana.publish("areas/cellar", 1, user)) == staff
        assert await can(grafana.publish("areas/kitchen", 1, user)) == (staff or name == "ann")
        assert await can(grafana.publish("readonly", 1, user)) == staff
        assert not await can(grafana.publish("open/a", 1, user)), "nobody without a publish hook"


async def test_a_query_takes_the_users_login_from_the_call():
    async with serve_in_memory(House) as grafana:
        for user in (ANN, EVE):
            query = {"queryType": "own", "box": "inbox", "me": "ben"}  # `me` is ignored
            (frame,) = await grafana.query(query, user=user)
            assert frame.meta.channel == f"ds/test/own/{own(user.login)}/inbox"
            assert list(frame.fields[1].values) == [user.login]
            viewer = await grafana.follow(frame.meta.channel.removeprefix("ds/test/"), user)
            assert (await viewer.next())["whose"] == user.login
        with pytest.raises(QueryFailed, match="needs a signed-in user, got none"):
            await grafana.query({"queryType": "own", "box": "inbox"}, user=None)


class Closed(DataSource):
    """A data source with rules for all its calls."""

    allow = (Allow(namespaces=("1",), logins=("ann",)), Allow(roles=("Admin",), namespaces=("2",)))

    @stream("a")
    async def a(self):
        yield {"n": 1}
        await anyio.sleep_forever()

    @stream("staff", allow=[STAFF])
    async def staff(self):
        yield {"n": 1}
        await anyio.sleep_forever()

    @query("q")
    async def q(self, query: Query) -> Frame:
        return Frame()

    @resource("r")
    async def r(self) -> str:
        return "secret"


@pytest.mark.parametrize("name", USERS)
async def test_the_rules_of_a_data_source_apply_to_all_calls(name):
    user = USERS[name]
    async with serve_in_memory(Closed) as grafana:  # organisation 1
        expected = name == "ann"
        assert await can(grafana.follow("a", user)) == expected
        assert await can(grafana.query({"queryType": "q"}, user=user)) == expected
        answer = await grafana.resource("r", user=user)
        assert (answer.status == 200) == expected and (b"secret" in answer.body) == expected
        assert not await can(grafana.follow("staff", user)), "both rules must allow it"
        assert (await grafana.health())[0], "Save & test is for admins only"


async def test_rules_may_depend_on_the_settings():
    class Chosen(Closed):
        def __init__(self):
            self.allow = [Allow(logins=("eve",))]

    async with serve_in_memory(Chosen) as grafana:
        assert await can(grafana.follow("a", EVE)) and not await can(grafana.follow("a", ANN))


async def test_each_decision_is_logged_once_and_a_path_without_rules_is_not(caplog):
    caplog.set_level(logging.DEBUG, "aiostream_ds.audit")
    async with serve_in_memory(House) as grafana:
        await grafana.follow("open/a", EVE)
        assert not await can(grafana.follow("areas/cellar", EVE))
        await grafana.follow("x/areas/kitchen", ANN)
        assert not await can(grafana.publish("readonly", 1, None))
        assert not await can(grafana.follow("both/ann", EVE))
        with pytest.raises(QueryFailed):
            await grafana.query({"queryType": "areas", "p": "cellar"}, user=EVE)
    lines = [r for r in caplog.records if r.name == "aiostream_ds.audit"]
    assert [(r.action, r.path, r.user, r.decision) for r in lines] == [
        ("subscribe", "areas/cellar", "eve", "refused"),
        ("subscribe", "areas/kitchen", "ann", "allowed"),
        ("publish", "readonly", "", "refused"),
        ("subscribe", "both/ann", "eve", "refused"),
        ("query", "areas/cellar", "eve", "refused"),
    ]
    # a panel under faults is allowed sixty times a minute
    levels = {(r.decision, r.levelname) for r in lines}
    assert levels == {("refused", "INFO"), ("allowed", "DEBUG")}
    assert "no rule allows 'eve' (Viewer) to read 'areas/cellar'" in lines[0].getMessage()
    assert "refused by the hook" in lines[3].getMessage()
    assert msgspec.json.encode([lines[0].datasource, lines[0].tenant, lines[0].role])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Allow(roles="Admin"), TypeError, "Allow.roles must be a tuple .* 'Admin'"),
        (lambda: Allow(logins=("",)), TypeError, "Allow.logins"),
        (lambda: Allow(paths=("a/{b:nothing}",)), ValueError, "Allow.paths: .* got 'nothing'"),
        (lambda: Allow(actions=("write",)), ValueError, "must be of read, publish, got"),
        (lambda: Allow(actions=()), ValueError, "Allow.actions"),
        (lambda: stream("a", allow=["Admin"])(House.open.run), TypeError, "Allow rules, got 'Ad"),
        (lambda: type("D", (DataSource,), {"allow": "Admin"}), TypeError, "D.allow: allow must be"),
        (lambda: type("D", (DataSource,), {"quota": 5}), TypeError, "D.quota must be .* got 5"),
    ],
)
def test_invalid_rules_are_rejected(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_path_has_at_most_one_user_field():
    with pytest.raises(TypeError, match="at most one user field, got a, b"):

        class Two(DataSource):
            @stream("{a:user}/{b:user}")
            async def two(self, a: str, b: str):
                yield {}


def test_an_editor_has_no_field_for_the_users_login():
    found = describe(Catalog(House))
    queries = {query["name"]: query for query in found["sources"][0]["queries"]}
    assert queries["own"]["fields"] == {"box": "segment"}
    assert list(queries["own"]["schema"]["properties"]) == ["box"]
