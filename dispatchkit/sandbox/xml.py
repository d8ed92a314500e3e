"""Altcraft's XML: requests into plain values, answers out of them.

Arrays are repeated elements, and one of a single element says ``array='true'``; an empty element is null.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from dispatchkit.sandbox.fields import FLAGS, INTEGERS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

    from dispatchkit.sandbox.wire import Json

_INTEGER = re.compile(r"-?[0-9]{1,18}")


def read(body: bytes) -> dict[str, Json]:
    """The fields of a request; text becomes an integer or a boolean where the contract wants one.

    Raises:
        ValueError: It is not XML, not safe XML, or its root is not ``<xml>``.
        ModuleNotFoundError: defusedxml is not installed.
    """
    try:
        from defusedxml import ElementTree  # noqa: PLC0415 - an optional extra, needed by this path alone
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the sandbox reads XML with defusedxml: pip install 'dispatchkit[xml]'") from error
    try:
        root: Element = ElementTree.fromstring(body, forbid_dtd=True)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    if root.tag != "xml":
        raise ValueError("the root element must be <xml>")
    value = _value(root)
    return value if isinstance(value, dict) else {}


def write(answer: Mapping[str, Json], *, sloppy: bool) -> bytes:
    """An answer as XML; ``sloppy`` makes the strings of ``status`` wear literal quotes, as the docs show them."""
    return f"<xml>{''.join(_element(name, value, sloppy=sloppy) for name, value in answer.items())}</xml>".encode()


def _value(element: Element) -> Json:
    if not len(element):
        return _scalar(element.tag, element.text)
    values: dict[str, Json] = {}
    for child in element:
        value = _value(child)
        known = values.get(child.tag)
        if isinstance(known, list):
            known.append(value)
        elif child.tag in values:
            values[child.tag] = [known, value]
        elif child.tag == "attach" or child.get("array") == "true":
            # The contract types attach as an array, so one that is not marked is an array of one as well.
            values[child.tag] = [value]
        else:
            values[child.tag] = value
    return values


def _scalar(name: str, text: str | None) -> Json:
    if not text:
        return None
    if name in INTEGERS and _INTEGER.fullmatch(text):
        return int(text)
    if name in FLAGS and text in ("true", "false"):
        return text == "true"
    return text


def _element(name: str, value: Json, *, sloppy: bool) -> str:
    if isinstance(value, list):
        if not value:
            return f"<{name}/>"
        mark = " array='true'" if len(value) == 1 else ""
        return "".join(f"<{name}{mark}>{_inner(name, item, sloppy=sloppy)}</{name}>" for item in value)
    inner = _inner(name, value, sloppy=sloppy)
    return f"<{name}>{inner}</{name}>" if inner else f"<{name}/>"


def _inner(name: str, value: Json, *, sloppy: bool) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case dict():
            return "".join(_element(key, item, sloppy=sloppy) for key, item in value.items())
        case _:
            text = escape(str(value), quote=False)
            return f'"{text}"' if sloppy and name == "status" else text
