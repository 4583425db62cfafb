"""`DataSource`: its settings class, how instances are created, and what may be overridden."""

from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import pytest

from aiostream_ds import DataSource, Health, InstanceSettings, Secret, Settings, stream
from aiostream_ds.datasource import create_instance
from aiostream_ds.testing import serve_in_memory


class Own(Settings):
    url: str = ""


class Special(Own):
    more: int = 0


S = TypeVar("S", bound=Own)


class Open(DataSource[S], Generic[S]):
    pass


class Closed(Open[Special]):
    pass


class Mixin(DataSource):
    async def health(self) -> Health:
        return Health()


class Mixed(Mixin, Closed):
    pass


def test_the_settings_class_is_found_through_bases_generics_and_mixins():
    assert Mixin._ds_plan.settings is Settings and Open._ds_plan.settings is Own
    assert Closed._ds_plan.settings is Special and Mixed._ds_plan.settings is Special
    assert type("Sub", (Mixed,), {})._ds_plan.settings is Special


def test_two_settings_classes_that_have_nothing_in_common_are_refused():
    class Other(Settings):
        pass

    class One(DataSource[Own]):
        pass

    class Two(DataSource[Other]):
        pass

    with pytest.raises(TypeError, match="Three.settings: expected one .* got Own and Other"):
        type("Three", (One, Two), {})


def test_the_argument_of_a_data_source_must_be_a_settings_class():
    with pytest.raises(TypeError, match="expected a Settings class .* got <class 'int'>"):

        class Wrong(DataSource[int]):  # type: ignore[type-var]
            pass


def test_settings_that_cannot_be_decoded_are_refused():
    class Deep(Settings):
        secrets: list[Secret] = []

    with pytest.raises(TypeError, match="Wrong.settings: a Secret must be a field of Deep itself"):

        class Wrong(DataSource[Deep]):
            pass


async def test_lifespan_and_health_may_be_overridden_or_left():
    class Sub(DataSource):
        @asynccontextmanager
        async def lifespan(self):
            yield

    made = create_instance(Sub, Settings())
    async with made.lifespan():
        assert await made.health() == Health(ok=True)


# __init__


class Broker(Settings):
    url: str = "mqtt://default"


async def test_settings_instance_and_grafana_config_are_set_before_init_runs():
    seen = {}

    class Sub(DataSource[Broker]):
        def __init__(self):
            seen.update(vars(self))

    settings = {"url": "mqtt://here"}
    async with serve_in_memory(Sub, settings=settings) as grafana:
        assert (await grafana.health())[0]
    assert seen["settings"] == Broker(url="mqtt://here")
    assert seen["instance"].uid and "grafana_config" in seen


def test_an_instance_is_created_with_its_settings_for_a_test():
    class Sub(DataSource[Broker]):
        def __init__(self):
            super().__init__()
            self.topics = [self.settings.url]

    made = create_instance(Sub, Broker(url="x"), InstanceSettings(uid="u"))
    assert made.topics == ["x"] and made.instance.uid == "u"
    assert create_instance(Sub, Broker()).instance == InstanceSettings()


def test_the_init_of_a_mixin_runs():
    class Counting:
        def __init__(self, start: int = 1, **options: int) -> None:
            self.count = start

    class Sub(Counting, DataSource):
        pass

    assert create_instance(Sub, Settings()).count == 1


def test_an_init_that_needs_arguments_is_refused_when_the_class_is_created():
    with pytest.raises(
        TypeError,
        match=r"Sub\.__init__: expected no arguments after self, got settings, instance; "
        "use self.settings and self.instance",
    ):

        class Sub(DataSource):
            def __init__(self, settings, instance, *, optional=None):
                pass


@pytest.mark.parametrize("name", ["state", "tasks"])
@pytest.mark.parametrize("member", [lambda self: 1, property(lambda self: 1), {}, None])
def test_a_member_with_the_name_of_an_attribute_of_the_runtime_is_refused(name, member):
    with pytest.raises(TypeError, match=f"Mine.{name} is an attribute of every data source, got"):
        type("Mine", (DataSource,), {name: member})


@pytest.mark.parametrize(
    ("name", "cure"), [("state", r"set its keys: self\.state\["), ("tasks", "use another name")]
)
def test_an_attribute_of_the_runtime_cannot_be_replaced(name, cure):
    class Mine(DataSource):
        def __init__(self):
            setattr(self, name, {})

    text = f"^.*Mine.{name} is .* cannot be replaced; {cure}"
    with pytest.raises(AttributeError, match=text):
        create_instance(Mine, Settings())


async def test_private_attributes_of_an_author_do_not_disturb_those_of_the_runtime():
    class Mine(DataSource):
        def __init__(self):
            self.state["n"] = 7
            self._state = self._plan = self._tasks = self._follow = self._threads = None

        @stream
        def counts(self):
            yield {"n": self.state["n"]}

        @stream
        async def derived(self):
            self.tasks.start_soon(self.background)
            async for row in self.follow("counts"):
                yield row

        async def background(self):
            pass

    async with serve_in_memory(Mine) as grafana:
        viewer = await grafana.follow("derived")
        assert (await viewer.next())["n"] == 7
