"""Mask the content of a command in the provider's message: a refusal may quote the content of a mailing.

Each field that a command hides from its repr with ``attrs.field(repr=...)`` is content. The field may be in the command
itself or in a value that it holds. The request is not searched, since it may be as large as an attachment.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Never, cast

import attrs

from dispatchkit.core.command import Command
from dispatchkit.core.masking import MASK, is_field_name, mask, specific_words

__all__ = ["mask_echo"]

_MAX_DATA = 256 * 1024
"""Maximum bytes of a file that is compared as a whole. In a longer file, each word of the message is looked up."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
_MAX_MESSAGE = 10_000
"""Characters of a message that are looked up in a long file."""


def mask_echo(message: str, command: Command[Never, object]) -> str:
    """The message without the content of the command.

    Args:
        message: What the provider wrote.
        command: The command that it refused.
    """
    hidden = [*_hidden(command)]
    if not hidden or not message:
        return message
    texts: list[str] = []
    files: list[bytes] = []
    for value in hidden:
        for leaf in _leaves(value):
            if isinstance(leaf, str):
                texts.append(leaf)
            else:
                files.append(leaf)
    for data in files:
        if len(data) > _MAX_DATA:
            message = _without_words(message, data)
        start = data[:_MAX_DATA]
        texts += [base64.b64encode(start).decode(), start.decode("utf-8", "ignore")]
    if files:
        message = _BASE64.sub(MASK, message)
    target = command.target
    return mask(message, texts, shown=frozenset() if target is None else frozenset({str(target)}))


def _without_words(message: str, data: bytes) -> str:
    """The message without the specific words that a long file holds."""
    for core, _ in [*specific_words(message[:_MAX_MESSAGE])]:
        if core.encode() in data:
            message = message.replace(core, MASK)
    return message[:_MAX_MESSAGE]


def _hidden(value: object) -> Iterator[object]:
    """The values of the fields that no repr shows, at any depth."""
    if isinstance(value, tuple | list):
        for item in cast("Sequence[object]", value):
            yield from _hidden(item)
    elif attrs.has(cls := type(value)):
        for field in attrs.fields(cls):
            inner: object = getattr(value, field.name)
            if field.repr is True:
                yield from _hidden(inner)
            else:
                yield inner


def _leaves(value: object) -> Iterator[str | bytes]:
    """The texts, numbers and files of a value. A key that can be no field's name is content, too."""
    if attrs.has(type(value)):
        value = [getattr(value, field.name) for field in attrs.fields(cast("type[attrs.AttrsInstance]", type(value)))]
    if isinstance(value, str | bytes):
        yield value
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[object, object]", value).items():
            if isinstance(key, str) and not is_field_name(key):
                yield key
            yield from _leaves(item)
    elif isinstance(value, Sequence):
        for item in cast("Sequence[object]", value):
            yield from _leaves(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)
