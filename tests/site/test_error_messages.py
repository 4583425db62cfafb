"""The index of error messages has what the code raises and logs."""

import ast

import pytest


@pytest.mark.parametrize(
    "source, text",
    [
        ("'a text'", "a text"),
        ("f'expected a path, got {path!r}'", "expected a path, got …"),
        ("'one ' + 'two'", "one two"),
        ("message", "…"),
    ],
)
def test_what_a_message_fills_in_is_an_ellipsis(messages, source, text):
    assert messages.template(ast.parse(source, mode="eval").body) == text


def test_the_formats_of_a_log_call_are_an_ellipsis(messages):
    text = "%s failed: %.2f s, %d%% of %r"
    assert messages.without_formats(text) == "… failed: … s, …% of …"


def test_errors_and_warnings_are_found_and_other_calls_are_not(messages):
    module = ast.parse(
        "raise errors.ConfigError(f'host must be set, got {host}')\n"
        "log.warning('the store %s is full', name)\n"
        "log.info('started')\n"
        "warning('no method of a log')\n"
        "raise StopIteration\n"
    )
    found = [(kind, messages.template(node)) for kind, node in messages.texts(module)]
    assert found == [
        ("ConfigError", "host must be set, got …"),
        ("log", "the store %s is full"),
    ]


@pytest.mark.slow
def test_the_index_has_messages_of_each_group(messages):
    found = list(messages.messages())
    groups = {messages.group_of(message.file) for message in found}
    assert groups == {messages.AUTHORS, *messages.GROUPS}
    assert "rows are not stored: …" in [message.text for message in found]


def test_each_part_that_a_group_names_exists(messages):
    for parts in messages.GROUPS.values():
        for part in parts:
            assert (messages.PACKAGE / part).exists(), part


def test_a_message_with_signs_of_markdown_stays_as_it_is(messages):
    assert messages.code("a | b") == "`a \\| b`"
    assert messages.code("use `x`") == "`` use `x` ``"
