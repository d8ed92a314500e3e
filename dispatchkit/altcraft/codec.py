"""The two wire formats of Altcraft, JSON and XML: encode the fields of a request, decode those of a response.

XML has no types, so its codec comes with a converter that reads numbers and booleans from text. Everything else is the
same in both formats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Literal, Protocol
from xml.sax.saxutils import escape

from dispatchkit.core import charset
from dispatchkit.core.command import UnexpectedResponseError
from dispatchkit.core.decode import fields_of, read_json, strict_converter
from dispatchkit.core.masking import is_field_name
from dispatchkit.core.validators import JsonValue

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from cattrs import Converter

__all__ = ["Codec", "JsonCodec", "WireForm", "XmlCodec", "codec"]

WireForm = Literal["json", "xml"]
"""The name of a wire format."""


class Codec(Protocol):
    """One wire format."""

    content_type: str
    converter: Converter
    """Reads the values of a response; it coerces no types that the format can tell apart."""

    def encode(self, fields: Mapping[str, JsonValue]) -> bytes:
        """The fields of a request, without the token.

        Raises:
            ValueError: The format cannot represent them.
        """
        ...

    def seal(self, encoded: bytes, token: str) -> bytes:
        """The whole body: the token, then the encoded fields."""
        ...

    def decode(self, body: bytes, content_type: str = "") -> Mapping[str, object]:
        """The fields of a response, in the charset of its byte order mark, its Content-Type or its XML declaration.

        Raises:
            UnexpectedResponseError: The body is not an object in this format.
        """
        ...


def codec(form: WireForm) -> Codec:
    """The codec of a wire format.

    Raises:
        ValueError: There is no such format.
        ImportError: The extra ``xml`` is not installed.
    """
    if form == "json":
        return _json()
    if form == "xml":
        return _xml()
    raise ValueError(f"wire must be 'json' or 'xml', not {form!r}")


@cache  # a codec has no state but its converter, which is costly to make
def _json() -> Codec:
    return JsonCodec()


@cache
def _xml() -> Codec:
    return XmlCodec()


_json_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
"""Built once: json.dumps builds an encoder for every call with options."""


class JsonCodec:
    """``application/json``."""

    content_type = "application/json"

    def __init__(self) -> None:
        self.converter = _with_times_as_said(strict_converter())

    def encode(self, fields: Mapping[str, JsonValue]) -> bytes:
        """See `Codec.encode`."""
        return _json_encoder.encode(fields).encode()

    def seal(self, encoded: bytes, token: str) -> bytes:
        """See `Codec.seal`."""
        return b'{"token":' + json.dumps(token).encode() + b"," + encoded[1:]

    def decode(self, body: bytes, content_type: str = "") -> Mapping[str, object]:
        """See `Codec.decode`."""
        fields = fields_of(read_json(body, content_type))
        if fields is None:
            raise UnexpectedResponseError("not a JSON object")
        return fields


def _with_times_as_said(converter: Converter) -> Converter:
    """Keep a time without a time zone as it is: the platform does not document its zone."""
    converter.register_structure_hook(
        datetime, lambda value, _: datetime.fromisoformat(converter.structure(value, str))
    )
    return converter


# ASCII only: the editions of XML and ``\w`` differ about letters beyond it.
_NAME = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
# Characters that XML 1.0 cannot represent, not even escaped.
_UNSAYABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MAX_DEPTH = 100


class XmlCodec:
    """``application/xml``, root element ``<xml>``.

    An array is its element repeated, marked ``array='true'`` if there is only one; an empty element is null. XML cannot
    represent an empty array or a nested array: such content needs ``wire="json"``.
    """

    content_type = "application/xml"

    def __init__(self) -> None:
        try:
            from defusedxml import ElementTree  # noqa: PLC0415 - an extra
        except ImportError as missing:
            raise ImportError(
                "wire='xml' needs the extra that parses XML safely: pip install 'dispatchkit[xml]'"
            ) from missing
        self._parse = ElementTree.fromstring
        self.converter = _from_text(_with_times_as_said(strict_converter()))

    def encode(self, fields: Mapping[str, JsonValue]) -> bytes:
        """See `Codec.encode`."""
        return "".join(_element(name, value, name) for name, value in fields.items()).encode()

    def seal(self, encoded: bytes, token: str) -> bytes:
        """See `Codec.seal`."""
        return b"<xml><token>" + escape(token).encode() + b"</token>" + encoded + b"</xml>"

    def decode(self, body: bytes, content_type: str = "") -> Mapping[str, object]:
        """See `Codec.decode`. Type and entity declarations are refused, so no entity expands."""
        fields: dict[str, object] | None
        try:
            root: Element = self._parse(_sayable(body, content_type), forbid_dtd=True)
            fields = fields_of(_value(root, _MAX_DEPTH)) if root.tag == "xml" else None
        except Exception:  # noqa: BLE001 - the response names its encoding, and any of Python's decoders may raise
            # Their texts may quote the response.
            fields = None
        if fields is None:
            raise UnexpectedResponseError(f"not the platform's XML ({len(body)} bytes)")
        return fields


_DECLARATION = re.compile(rb"""<\?xml\s[^>]*?encoding\s*=\s*["']([^"']*)""")


def _sayable(body: bytes, content_type: str) -> bytes | str:
    """The input of the parser: UTF-8 bytes, or text, whose declaration it ignores."""
    if charset.mark(body) or (content_type and charset.named(content_type)):
        return charset.text(body, content_type)
    declared = _DECLARATION.match(body)
    label = charset.UTF_8 if declared is None else charset.known(declared[1].decode())
    return body if label == charset.UTF_8 else body.decode(label)


def _element(name: str, value: JsonValue, path: str) -> str:
    if _NAME.fullmatch(name) is None:
        what = repr(name) if is_field_name(name) else "its last key"
        raise ValueError(f"{path}: {what} cannot be the name of an XML element; rename it, or use wire='json'")
    if isinstance(value, Mapping):
        inner = "".join(
            _element(key, item, f"{path}.{key if is_field_name(key) else f'<key {position}>'}")
            for position, (key, item) in enumerate(value.items(), 1)
        )
        return f"<{name}>{inner}</{name}>"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not value or any(isinstance(item, list | tuple) for item in value):
            raise ValueError(f"{path} must hold no empty array and no array in an array in XML; use wire='json'")
        items = [_element(name, item, f"{path}[{index}]") for index, item in enumerate(value)]
        return "".join(items) if len(items) > 1 else items[0].replace(f"<{name}", f"<{name} array='true'", 1)
    text = _text(value)
    if _UNSAYABLE.search(text):
        raise ValueError(f"{path} must hold no control characters in XML; use wire='json'")
    # A bare carriage return would be read back as a line feed.
    return f"<{name}>{escape(text, {chr(13): '&#13;'})}</{name}>" if text else f"<{name}/>"


def _text(value: str | float | bool | None) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _value(element: Element, depth: int) -> object:
    if depth <= 0:
        raise ValueError("nested too deeply")
    if not len(element):
        return (element.text or "").strip() or None
    values: dict[str, list[object]] = {}
    marked: set[str] = set()
    for child in element:
        values.setdefault(child.tag, []).append(_value(child, depth - 1))
        if child.get("array") == "true":
            marked.add(child.tag)
    fields: dict[str, object] = {}
    for name, items in values.items():
        if name in marked:
            fields[name] = [item for item in items if item is not None]  # an empty array is one empty, marked element
        else:
            fields[name] = items if len(items) > 1 else items[0]
    return fields


_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def _from_text(converter: Converter) -> Converter:
    """Let a strict converter read numbers and booleans from text."""

    def integer(value: object, _: type[int]) -> int:
        if isinstance(value, str) and _INTEGER.fullmatch(_unquote(value)):
            return int(_unquote(value))
        raise TypeError("int expected")

    def boolean(value: object, _: type[bool]) -> bool:
        if isinstance(value, str) and _unquote(value) in {"true", "false"}:
            return _unquote(value) == "true"
        raise TypeError("bool expected")

    def text(value: object, _: type[str]) -> str:
        if value is None:
            return ""  # an empty element: XML cannot tell null from no text
        if isinstance(value, str):
            return _unquote(value)
        raise TypeError("str expected")

    converter.register_structure_hook(int, integer)
    converter.register_structure_hook(bool, boolean)
    converter.register_structure_hook(str, text)
    return converter


def _unquote(text: str) -> str:
    """Remove the literal quotes that the platform's XML sometimes has around a string."""
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text
