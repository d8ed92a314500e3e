"""Options of a launch of Altcraft: audience, content, files. All are read before the first request is sent."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, TypedDict, cast

from dispatchkit import Attachment, Audience
from dispatchkit.cli.input.small_file import read_small_file
from dispatchkit.cli.providers.attachments import read_attachments
from dispatchkit.cli.translate import _

if TYPE_CHECKING:
    from dispatchkit.cli.options import LaunchOptions
    from dispatchkit.core.validators import JsonValue

__all__ = ["Overrides", "audience", "overrides"]


_MAX_CONTENT = 10_000_000
"""Bytes of a content. The platform takes bodies of 10 MB by default."""


class Overrides(TypedDict):
    """The keywords of a launch."""

    audience: Audience | None
    limit: int | None
    content: dict[str, JsonValue] | None
    attachments: list[Attachment]


def overrides(options: LaunchOptions) -> Overrides:
    """The overrides of a launch for one run.

    Raises:
        ValueError: ``--audience`` or ``--content`` does not say what it must.
        OSError: A file cannot be read.
    """
    return {
        "audience": None if options.audience is None else audience("--audience", options.audience),
        "limit": options.limit,
        "content": None if options.content is None else _content(options.content),
        "attachments": read_attachments(options.attach or ()),
    }


def audience(name: str, text: str) -> Audience:
    """The audience that a text names, such as ``list:1``.

    Raises:
        ValueError: It names none.
    """
    kind, _separator, number = text.partition(":")
    if kind not in {"list", "segment"} or re.fullmatch("[0-9]{1,19}", number) is None:
        raise ValueError(
            _("{name} must be list:ID or segment:ID, such as list:1, not {text!r}").format(name=name, text=text)
        )
    return Audience(kind, int(number))  # type: ignore[arg-type]


def _content_of_file(name: str) -> bytes:
    return read_small_file("--content", name, max_bytes=_MAX_CONTENT, pipe=True)


def _content(text: str) -> dict[str, JsonValue]:
    # Its words are the customer's: no message quotes them.
    name = text[1:] if text.startswith("@") else "--content"
    try:
        content: object = json.loads(_content_of_file(name) if text.startswith("@") else text)
    except json.JSONDecodeError as error:
        raise ValueError(
            _(
                "{name} is not JSON: {problem}, line {line}, column {column}. It must be a JSON object, such as "
                '{{"field": "value"}}'
            ).format(name=name, problem=error.msg, line=error.lineno, column=error.colno)
        ) from None
    except UnicodeDecodeError:
        raise ValueError(_("{name} is not text in UTF-8: save it in this encoding").format(name=name)) from None
    except RecursionError:
        raise ValueError(_("{name} is nested too deeply: give a flatter object").format(name=name)) from None
    if not isinstance(content, dict):
        raise ValueError(  # noqa: TRY004 - a text that the user typed
            _('{name} must be a JSON object, such as {{"field": "value"}}').format(name=name)
        )
    return cast("dict[str, JsonValue]", content)
