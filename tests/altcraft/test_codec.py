"""The two wire forms: each reads what it writes, and refuses what it cannot represent before it is sent."""

from __future__ import annotations

import string
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatchkit.altcraft.codec import JsonCodec, XmlCodec, codec
from dispatchkit.core.command import UnexpectedResponseError
from dispatchkit.core.validators import JsonValue, json_object
from tests.strategies import LETTERS


def in_xml(fields: Mapping[str, JsonValue], token: str = "t") -> bytes:
    xml = XmlCodec()
    return xml.seal(xml.encode(fields), token)


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"a": [1]}, "<a array='true'>1</a>"),
        ({"a": [{"b": 1}]}, "<a array='true'><b>1</b></a>"),
        ({"a": [None]}, "<a array='true'/>"),
        ({"a": [1, 2]}, "<a>1</a><a>2</a>"),
        ({"a": None, "b": ""}, "<a/><b/>"),
        ({"a": True, "b": False}, "<a>true</a><b>false</b>"),
        ({"a": -1, "b": 1.5, "c": 10000000125}, "<a>-1</a><b>1.5</b><c>10000000125</c>"),
        ({"a": "<b> & \"c\" 'd' ]]>"}, "<a>&lt;b&gt; &amp; \"c\" 'd' ]]&gt;</a>"),
        ({"a": "x\r\ny"}, "<a>x&#13;\ny</a>"),
        ({"имя": 1}, None),
        ({"a": "имя 🎉"}, "<a>имя 🎉</a>"),
        ({"a": {"b": {"c": [1, {"d": "e"}]}}}, "<a><b><c>1</c><c><d>e</d></c></b></a>"),
    ],
)
def test_xml_is_written_so(fields: dict[str, JsonValue], written: str | None) -> None:
    if written is None:
        with pytest.raises(ValueError, match="имя"):
            in_xml(fields)
    else:
        assert in_xml(fields).decode() == f"<xml><token>t</token>{written}</xml>"


@pytest.mark.parametrize(
    "name", ["", "1a", "a b", "a>b", "a/b", "-a", ".a", "a:b", "aµ", "a²", "aª", "aº", "ж", "a\n", "a\u037e", "a'"]
)
def test_invalid_xml_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="wire='json'") as refusal:
        in_xml({"content": {"deep": {name: 1}}})
    assert repr(name) in str(refusal.value)
    assert str(refusal.value).startswith("content.deep.")


@pytest.mark.parametrize("char", [*map(chr, range(9)), "\x0b", "\x0c", "\x0e", "\x1b", "\x1f", "\ufffe", "\uffff"])
def test_invalid_xml_character_is_refused(char: str) -> None:
    with pytest.raises(ValueError, match=r"content\.a must hold no control characters"):
        in_xml({"content": {"a": f"x{char}y"}})


@pytest.mark.parametrize("array", [[], [[]], [[1]], [1, [2]]])
def test_invalid_xml_array_is_refused(array: list[JsonValue]) -> None:
    with pytest.raises(ValueError, match=r"content\.a must hold no empty array and no array in an array"):
        in_xml({"content": {"a": array}})


def test_documented_samples_are_read() -> None:
    read = XmlCodec().decode(
        b"""<?xml version="1.0" encoding="UTF-8"?>
        <xml><data><is_active>false</is_active><status>"Inactive"</status><one array='true'><a>1</a></one>
        <none array='true'/><two>1</two><two>2</two><empty/></data><error>0</error></xml>"""
    )
    assert read == {
        "data": {
            "is_active": "false",
            "status": '"Inactive"',
            "one": [{"a": "1"}],
            "none": [],
            "two": ["1", "2"],
            "empty": None,
        },
        "error": "0",
    }
    converter = XmlCodec().converter
    assert converter.structure('"Inactive"', str) == "Inactive"
    assert converter.structure('"', str) == '"'
    assert converter.structure(None, str) == ""
    assert converter.structure("false", bool) is False
    assert converter.structure('"12"', int) == 12


@pytest.mark.parametrize("text", ["1.0", "", " 1", "1e3", "٣", "0x1", "9" * 20, "True", None, ["1"], {"a": "1"}])
def test_non_integer_is_not_read(text: object) -> None:
    with pytest.raises(TypeError):
        XmlCodec().converter.structure(text, int)


@pytest.mark.parametrize("text", ["True", "1", "0", "", "yes", None, "TRUE"])
def test_non_boolean_is_not_read(text: object) -> None:
    with pytest.raises(TypeError):
        XmlCodec().converter.structure(text, bool)


names = st.builds(
    str.__add__,
    st.sampled_from(string.ascii_letters + "_"),
    st.text(string.ascii_letters + string.digits + "_.-", max_size=7),
)
texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff") | st.sampled_from("\t\n\r<>&\"'"),
    max_size=12,
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | texts
)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(names, values, min_size=1, max_size=3)


def arrays(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, min_size=1, max_size=3)


values = st.recursive(
    scalars,
    lambda inner: objects(inner) | arrays(inner.filter(lambda value: not isinstance(value, list))),
    max_leaves=10,
)


def as_read(value: Any) -> Any:
    """What XML keeps of a value: text without its margins; nothing of a null but its element."""
    if isinstance(value, dict):
        return {name: as_read(item) for name, item in value.items()}
    if isinstance(value, list):
        read = [as_read(item) for item in value]
        return [] if read == [None] else read
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value).strip() or None


@pytest.mark.second_stage
@given(fields=objects(values))
@settings(max_examples=100, deadline=None)
def test_xml_round_trip(fields: dict[str, Any]) -> None:
    copied = json_object("content", fields)
    written = in_xml({"content": copied}, 'a"&<>b')
    read = XmlCodec().decode(written)
    assert read == {"token": 'a"&<>b', "content": as_read(fields)}


any_text = st.text(LETTERS, max_size=8)
anything = st.recursive(
    scalars | any_text,
    lambda inner: st.dictionaries(any_text, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.second_stage
@given(fields=st.dictionaries(any_text, anything, max_size=3))
@settings(max_examples=100, deadline=None)
def test_accepted_xml_is_well_formed(fields: dict[str, Any]) -> None:
    try:
        written = in_xml(json_object("content", fields))
    except ValueError:
        return
    ET.fromstring(written.decode())


@pytest.mark.second_stage
@given(fields=st.dictionaries(any_text, anything, max_size=3))
@settings(max_examples=100, deadline=None)
def test_json_round_trip(fields: dict[str, Any]) -> None:
    form = JsonCodec()
    written = form.seal(form.encode({"id": 1, "content": json_object("content", fields)}), 'a"\\b')
    assert form.decode(written) == {"token": 'a"\\b', "id": 1, "content": fields}


@given(body=st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_bytes_decode_or_fail(body: bytes) -> None:
    for form in (JsonCodec(), XmlCodec()):
        for attempt in (body, b"<xml>" + body + b"</xml>", b'{"a":' + body + b"}"):
            try:
                assert isinstance(form.decode(attempt), dict)
            except UnexpectedResponseError as error:
                assert error.__context__ is None  # noqa: PT017 - most bytes raise, a few do not


@pytest.mark.parametrize(
    "body",
    [
        (
            b'<!DOCTYPE xml [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">'
            b'<!ENTITY lol3 "&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;&lol2;">]><xml><error>&lol3;</error></xml>'  # noqa: E501
        ),
        b'<!DOCTYPE xml [<!ENTITY x SYSTEM "file:///etc/passwd">]><xml><error>&x;</error></xml>',
        b'<!DOCTYPE xml [<!ENTITY % x SYSTEM "http://127.0.0.1:1/"> %x;]><xml><error>0</error></xml>',
        b'<!DOCTYPE xml PUBLIC "-//W3C//DTD XHTML 1.0//EN" "http://127.0.0.1:1/"><xml><error>0</error></xml>',
        b"<xml>" * 100_000 + b"</xml>" * 100_000,
        b"<html/>",
        b"<xml><a>1</xml>",
        '<?xml version="1.0" encoding="utf-16"?><xml><a>1</a></xml>'.encode("cp1251"),
    ],
    ids=["billion laughs", "external entity", "parameter entity", "dtd", "deep", "root", "unclosed", "encoding"],
)
def test_hostile_xml_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnexpectedResponseError) as unreadable:
        XmlCodec().decode(body)
    assert str(unreadable.value) == f"not the platform's XML ({len(body)} bytes)"
    assert unreadable.value.__context__ is None


@pytest.mark.parametrize("form", ["yaml", "JSON", "", None, [], 1])
def test_there_are_two_wire_forms(form: Any) -> None:
    with pytest.raises(ValueError, match=r"wire must be 'json' or 'xml', not ") as refusal:
        codec(form)
    assert repr(form) in str(refusal.value)
