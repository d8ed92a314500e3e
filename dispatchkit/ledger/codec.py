"""Convert a command to the text that a ledger holds, and back. A later release must still read this text.

    {"type":"sms.start","version":1,"campaign":7}

The type is the name of the provider and that of the command, as the registry has them. The fields are those of the
command's class (`converter`). A long field is a content: the text has its hash (`contents`). Commands that differ in
one number only share a template, which writes and reads them faster (`template`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Never

from dispatchkit.core.command import Command, UnexpectedResponseError
from dispatchkit.core.decode import fields_of, read_json
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.contents import FIELD, CommandText, Content, file_key, files_of, is_file_key
from dispatchkit.ledger.converter import VERSION, LargeCommandError, read_command, write_command, write_json
from dispatchkit.ledger.files import File, keep
from dispatchkit.ledger.keys import key_of
from dispatchkit.ledger.template import Template

__all__ = ["decode", "decode_at_once", "encode", "encode_in_thread", "encode_text", "numbered"]

_MAX_TRIES = 1000


def encode(command: Command[Never, object]) -> tuple[bytes, str]:
    """The key of a command, by which two of them are the same, and its text.

    Raises:
        TypeError: It is no command that a ledger can hold.
    """
    text = encode_text(command)
    return key_of(command, text), text


async def encode_in_thread(command: Command[Never, object]) -> tuple[bytes, str]:
    """As `encode`. A thread encodes a large command."""
    try:
        text = encode_text(command, may_wait=False)
    except LargeCommandError:
        text = await asyncio.to_thread(encode_text, command)
    return key_of(command, text), text


def encode_text(command: Command[Never, object], *, may_wait: bool = True) -> str:
    """The text of a command.

    Args:
        command: The command.
        may_wait: Whether a large command is encoded: the hash of a file of 70 MiB takes a tenth of a second or more.

    Raises:
        TypeError: It is no command that a ledger can hold.
        LargeCommandError: The command is large, and ``may_wait`` is false.
    """
    template = _templates.writer
    text = None if template is None else template.write(command)
    if text is not None:
        _templates.tries = _MAX_TRIES
        return text
    fields, contents, written = write_command(command, may_wait=may_wait)
    hashes = {name: content.name for name, content in contents.items()}
    texts: dict[str, Content] = {content.name: content.text for content in contents.values()}
    if files := {file.name: file for file in written}:
        hashes |= {file_key(number): name for number, name in enumerate(files)}
        texts |= files
        keep(command, written)
    text = write_json({"type": fields.pop("type"), "version": VERSION, **fields} | ({FIELD: hashes} if hashes else {}))
    if hashes:
        text = CommandText(text, texts)
    if _templates.tries:
        _templates.tries -= 1
        _templates.writer = Template.of(command, text) or template
    return text


def decode(text: str, *, partial: bool = False) -> Command[Never, object]:
    """The command of a text.

    Args:
        text: The text, as a store returns it.
        partial: Leave out contents that were pruned, and let zeros stand for files that were not read. Such a command
            is good for display only.

    Raises:
        LedgerError: Its provider is not installed, a newer release wrote it, it is damaged, its contents were pruned,
            or its files were not read.
        ImportError: Its provider's package cannot be loaded.
    """
    command = _read_by_template(text)
    return _decode(text, files_of(text), partial=partial) if command is None else command


def decode_at_once(text: str) -> Command[Never, object] | None:
    """The command of a text; None if it is large, so that a thread or `load_files` must read it. See `decode`."""
    command = _read_by_template(text)
    if command is not None or (isinstance(text, CommandText) and text.is_large):
        return command
    files = files_of(text)
    return None if files is None else _decode(text, files, partial=False)


def _read_by_template(text: str) -> Command[Never, object] | None:
    template = _templates.reader
    try:  # each launch reads one
        return None if template is None else template.read(text)
    except (TypeError, ValueError):
        return None  # the class refuses the number: `_decode` says so


def _decode(text: str, files: Mapping[str, File] | None, *, partial: bool) -> Command[Never, object]:
    try:
        fields = fields_of(read_json(text.encode())) or {}
    except UnexpectedResponseError:
        fields = {}
    if files is None and not partial:
        raise LedgerError("a file of the command was not read from the ledger, so the command cannot be launched")
    is_whole = _put_contents(fields, text, partial=partial) and files is not None
    name, version = fields.get("type"), fields.pop("version", None)
    if not isinstance(name, str) or type(version) is not int:
        raise LedgerError("the ledger holds what is no command: it is damaged, so restore it from a copy")
    command = read_command(name, version, fields, files or {}, partial=partial)
    keep(command, (files or {}).values())
    if is_whole and version == VERSION and _templates.tries and encode_text(command) == text:
        _templates.reader = _templates.writer
    return command


def _put_contents(fields: dict[str, object], text: str, *, partial: bool) -> bool:
    """Put the contents of a text in the place of their hashes. Returns False if some are left out."""
    hashes = fields_of(fields.pop(FIELD, None)) or {}
    contents: Mapping[str, Content] = text.contents if isinstance(text, CommandText) else {}
    is_whole = True
    for field, name in hashes.items():
        if is_file_key(field):
            continue
        content = contents.get(str(name))
        if isinstance(content, str):
            fields[field] = read_json(content.encode())
        elif partial:
            is_whole = False
        else:
            raise LedgerError("the contents of the run were pruned, so its commands cannot be launched")
    return is_whole


def numbered(text: str) -> tuple[Template, int] | None:
    """What a text shares with those before it, and its number; None if it shares nothing."""
    template = _templates.reader
    number = None if template is None else template.number(text)
    return None if template is None or number is None else (template, number)


class _Templates:
    """The latest templates of this process."""

    writer: Template | None = None
    reader: Template | None = None
    tries: int = _MAX_TRIES
    """Templates that may still be made until one is of use: commands that have nothing in common do without."""


_templates = _Templates()
