"""A command as text, and back. What one release wrote, every later one must read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit import (
    ActivateMailing,
    Attachment,
    Audience,
    DeactivateMailing,
    LaunchBroadcast,
    LaunchRegular,
    LedgerError,
    StartDispatch,
    StopDispatch,
)
from dispatchkit.altcraft.client import AltcraftClient
from dispatchkit.direct.commands import ReadDispatch
from dispatchkit.ledger.codec import decode, encode
from dispatchkit.ledger.keys import KEY_BYTES

FILE = Attachment.from_bytes(b"\x00\xff%PDF", name="Полис.pdf")

# As version 1 wrote them. Never change a line here: ledgers in the world hold them.
VERSION_1 = [
    ('{"type":"direct.start","version":1,"dispatch_id":10000000125}', StartDispatch(10000000125)),
    ('{"type":"direct.stop","version":1,"dispatch_id":7}', StopDispatch(7)),
    ('{"type":"altcraft.activate","version":1,"mailing_id":82}', ActivateMailing(82)),
    (
        (
            '{"type":"altcraft.activate","version":1,"mailing_id":82,"audience":{"kind":"list","id":1},"limit":300,'
            '"content":{"z":[1,null,"ж",{"a":1.5}],"b":true},"attachments":[{"name":"Полис.pdf","data":"AP8lUERG",'
            '"media_type":"application/pdf"}],"run_now":true}'
        ),
        ActivateMailing(
            82,
            audience=Audience("list", 1),
            limit=300,
            content={"z": [1, None, "ж", {"a": 1.5}], "b": True},
            attachments=[FILE],
            run_now=True,
        ),
    ),
    (
        '{"type":"altcraft.launch","version":1,"mailing_id":90,"audience":{"kind":"segment","id":5},"content":{}}',
        LaunchBroadcast(90, audience=Audience("segment", 5), content={}),
    ),
    (
        '{"type":"altcraft.launch-regular","version":1,"mailing_id":91,"limit":300}',
        LaunchRegular(91, limit=300),
    ),
    (
        '{"type":"altcraft.deactivate","version":1,"mailing_id":3,"abort_if_running":false}',
        DeactivateMailing(3, abort_if_running=False),
    ),
]


@pytest.mark.parametrize(("text", "command"), VERSION_1)
def test_version_1_round_trip(text: str, command: Any) -> None:
    assert decode(text) == command
    assert encode(command)[1] == text


ids = st.integers(1, 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
audiences = st.builds(Audience, st.sampled_from(["list", "segment"]), ids)
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
files = st.builds(lambda data, name: Attachment.from_bytes(data, name=name), st.binary(max_size=50), names)
overrides = {
    "limit": st.none() | st.integers(0, 2**40),
    "content": st.none() | st.dictionaries(texts, values, max_size=4),
    "attachments": st.lists(files, max_size=2),
}
commands = st.one_of(
    st.builds(StartDispatch, ids),
    st.builds(StopDispatch, ids),
    st.builds(ActivateMailing, ids, run_now=st.sampled_from([None, True, False]), **overrides),
    st.builds(ActivateMailing, ids, run_now=st.just(True), audience=audiences, **overrides),
    st.builds(LaunchBroadcast, ids, audience=st.none() | audiences, **overrides),
    st.builds(LaunchRegular, ids, audience=st.none() | audiences, **overrides),
    st.builds(DeactivateMailing, ids, abort_if_running=st.sampled_from([None, True, False])),
)


@settings(deadline=None)
@given(commands)
def test_command_round_trip(command: Any) -> None:
    told, text = encode(command)
    back = decode(text)
    assert back == command
    assert repr(back) == repr(command)
    assert encode(back) == (told, text)
    assert "\n" not in text
    assert len(told) == KEY_BYTES


@settings(deadline=None)
@given(commands)
def test_repeat_has_same_bytes(command: Any) -> None:
    if isinstance(command, StartDispatch | StopDispatch):
        return
    wire = AltcraftClient("https://example.com", "t")._context.wire
    assert decode(encode(command)[1]).request(wire, "r").body == command.request(wire, "r").body  # type: ignore[arg-type]


@settings(deadline=None)
@given(commands, commands)
def test_only_equal_commands_share_key(first: Any, second: Any) -> None:
    if first != second:
        assert encode(first)[0] != encode(second)[0]


def test_key_ignores_content_order() -> None:
    one, other = (
        LaunchBroadcast(1, content={"a": 1, "b": {"c": 2, "d": 3}}),
        LaunchBroadcast(1, content={"b": {"d": 3, "c": 2}, "a": 1}),
    )
    assert encode(one)[0] == encode(other)[0]
    assert encode(one)[1] != encode(other)[1]


def test_start_and_stop_are_two() -> None:
    assert encode(StartDispatch(7))[0] != encode(StopDispatch(7))[0]


def test_reads_are_not_held() -> None:
    with pytest.raises(TypeError, match="holds StartDispatch, StopDispatch of the provider 'direct', not Read"):
        encode(ReadDispatch(7))


@pytest.mark.parametrize("other", ["no command", None])
def test_only_commands_are_held(other: Any) -> None:
    with pytest.raises(TypeError, match="a ledger holds commands of known providers, not "):
        encode(other)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"direct.pause","version":1,"dispatch_id":7}',
        '{"type":"direct.start","version":2,"dispatch_id":7,"more":1}',
    ],
)
def test_newer_record_asks_for_upgrade(text: str) -> None:
    with pytest.raises(LedgerError, match=r"a newer release of dispatchkit wrote .*\. Upgrade dispatchkit"):
        decode(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"type":"direct.start"}',
        '{"type":"direct.start","version":"1","dispatch_id":7}',
        '{"type":"direct.start","version":1}',
        '{"type":"direct.start","version":1,"dispatch_id":"7"}',
        '{"type":"direct.start","version":1,"dispatch_id":-7}',
        '{"type":"direct.start","version":1,"dispatch_id":7,"unheard":1}',
        '{"type":"altcraft.launch","version":1,"mailing_id":1,"attachments":[{"name":"a","data":"!!","media_type":"a/b"}]}',
        '{"type":"altcraft.launch","version":1,"mailing_id":1,"content":"secret"}',
    ],
)
def test_damaged_record_is_hidden(text: str) -> None:
    with pytest.raises(LedgerError, match=r"damaged|cannot be read") as raised:
        decode(text)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_the_texts_are_json() -> None:
    for text, _ in VERSION_1:
        assert json.loads(text)["version"] == 1
