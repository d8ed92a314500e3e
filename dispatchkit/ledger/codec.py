"""Convert a command to the text that a ledger holds, and back. A later release must still read this text.

    {"type":"sms.start","version":1,"campaign":7}

The type is the name of the provider and that of the command, as the registry has them. The fields are those of the
command's class. A field with its default value is left out. Bytes are in Base64, and large ones are a file of their own
(`files`): ``{"file":"91be...","size":70000}``. A JSON field (`JSON_FIELD`) keeps the order of its keys, since a repeat
must send the same bytes. A comparison of two commands ignores this order. A long field is a content: the text has its
hash (`contents`).

If older texts no longer fit a changed class, raise its version by one. `_read` must then read both versions.
"""

from __future__ import annotations

import asyncio
import json
import threading
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from hashlib import sha256
from operator import is_
from types import UnionType
from typing import Never, TypeVar, cast, get_origin

import attrs
from cattrs import Converter
from cattrs.dispatch import StructureHook, UnstructureHook
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.strategies import configure_tagged_union

from dispatchkit.core.command import JSON_FIELD, Command, UnexpectedResponseError
from dispatchkit.core.decode import fields_of, read_json, strict_converter
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.contents import (
    FIELD,
    LONG,
    MIN_LENGTH,
    CommandText,
    Content,
    file_key,
    files_of,
    hash_of,
    is_file_key,
)
from dispatchkit.ledger.files import FILE_BYTES, File, file_of, keep, known_file
from dispatchkit.ledger.template import Template, is_constant
from dispatchkit.providers import Provider, find_provider, installed_provider

__all__ = [
    "KEY_BYTES",
    "LargeCommandError",
    "decode",
    "decode_at_once",
    "encode",
    "encode_in_thread",
    "encode_text",
    "is_intact",
    "is_same",
    "key",
    "key_of",
    "numbered",
]

T = TypeVar("T")

KEY_BYTES = 20
"""Length of a key: a target and 96 bits of a hash, or 160 bits of a hash."""
_TARGET_BYTES = 8
_MAX_TRIES = 1000

_VERSION = 1
_OURS = ("type", "version", FIELD)

# Built once: json.dumps builds an encoder for every call that asks for anything special.
_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_write_sorted = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def encode(command: Command[Never, object]) -> tuple[bytes, str]:
    """The key of a command, by which two of them are the same, and its text.

    Raises:
        TypeError: It is no command that a ledger can hold.
    """
    text = encode_text(command)
    return key_of(command, text), text


class LargeCommandError(Exception):
    """To encode a command would block the event loop, so a thread should do it."""


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
    _thread.may_wait, _thread.written = may_wait, []
    return _encode_text(command)


class _Thread(threading.local):
    """What this thread encodes or decodes."""

    may_wait: bool = True
    """See `encode_text`."""

    def __init__(self) -> None:
        self.written: list[File] = []
        """The files of the command, so far."""
        self.known: Mapping[str, File] = {}
        """The files of the command by hash."""
        self.partial = False
        """Whether zeros stand for other files. See `decode`."""


_thread = _Thread()


def _write_bytes(data: bytes) -> object:
    if len(data) < FILE_BYTES:
        return b2a_base64(data, newline=False).decode()
    file = known_file(data)
    if file is None:
        if not _thread.may_wait:
            raise LargeCommandError
        file = file_of(data)
    _thread.written.append(file)
    return {"file": file.name, "size": len(data)}


def _read_bytes(value: object, _: object) -> bytes:
    if isinstance(value, str):
        return a2b_base64(value, strict_mode=True)
    if not isinstance(value, dict):
        raise TypeError("bytes expected")
    fields = cast("dict[str, object]", value)
    name, size = fields["file"], fields["size"]
    if type(size) is not int or not isinstance(name, str):
        raise TypeError("a file expected")
    if _thread.partial and name not in _thread.known:
        return bytes(size)  # zeros that nothing reads take no memory
    return _thread.known[name].data


def _content_text(value: object) -> str:
    text = _write(value)
    if len(text) >= LONG and not _thread.may_wait:
        raise LargeCommandError
    return text


def _encode_text(command: Command[Never, object]) -> str:
    template = _templates.writer
    cls = type(command)
    fields = cast("dict[str, object]", _codec_of(cls).write(command))
    contents = _take_contents(fields)
    hashes = {name: content.name for name, content in contents.items()}
    texts: dict[str, Content] = {content.name: content.text for content in contents.values()}
    if files := {file.name: file for file in _thread.written}:
        hashes |= {file_key(number): name for number, name in enumerate(files)}
        texts |= files
        keep(command, _thread.written)
        _thread.written = []
    text = _write({"type": fields.pop("type"), "version": _VERSION, **fields} | ({FIELD: hashes} if hashes else {}))
    if hashes:
        text = CommandText(text, texts)
    if _templates.tries:
        _templates.tries -= 1
        _templates.writer = Template.of(command, text) or template
    return text


@attrs.frozen
class _Content:
    """A long field."""

    name: str
    """Its hash."""
    text: str
    files: Sequence[File] = ()


def _take_contents(fields: dict[str, object]) -> dict[str, _Content]:
    """Take the long fields out of a command's fields."""
    taken: dict[str, _Content] = {}
    for field, value in fields.items():
        if isinstance(value, _Content):
            taken[field] = value
        elif isinstance(value, (dict, list)) or (isinstance(value, str) and len(value) >= MIN_LENGTH):
            text = _content_text(cast("object", value))
            if len(text) >= MIN_LENGTH:
                taken[field] = _Content(hash_of(text), text)
    for field in taken:
        del fields[field]
    return taken


def key_of(command: Command[Never, object], text: str) -> bytes:
    """The key of a command and its text: its target, and a hash.

    The targets of a list are often in order. Then so are the keys, and an index of them grows at its end.
    """
    if _has_json(type(command)):
        text = _write_sorted(json.loads(text))
    digest = sha256(text.encode()).digest()
    target = command.target
    if type(target) is int and 0 < target < 2**63:
        return target.to_bytes(_TARGET_BYTES, "big") + digest[: KEY_BYTES - _TARGET_BYTES]
    return digest[:KEY_BYTES]


def key(command: Command[Never, object]) -> bytes:
    """What two commands share if they are the same.

    Raises:
        TypeError: It is no command that a ledger can hold.
    """
    return encode(command)[0]


def is_intact(text: str, key: bytes) -> bool:
    """Whether a text is that of the planned command, with its contents but for files. See `is_same`."""
    return not (isinstance(text, CommandText) and not text.is_complete) and is_same(text, key)


def is_same(text: str, key: bytes) -> bool:
    """Whether a text has this key. The order of keys in JSON fields does not count."""
    if _fits(text, key):
        return True
    try:
        return _fits(_write_sorted(json.loads(text)), key)
    except (ValueError, RecursionError):
        return False


def _fits(text: str, key: bytes) -> bool:
    digest = sha256(text.encode()).digest()
    return key[_TARGET_BYTES:] == digest[: KEY_BYTES - _TARGET_BYTES] or key == digest[:KEY_BYTES]


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
    _thread.known, _thread.partial = files or {}, partial
    try:
        command = _read(_codec_reading(name, version), name, fields)
    finally:
        _thread.known = {}
    keep(command, (files or {}).values())
    if is_whole and version == _VERSION and _templates.tries and encode_text(command) == text:
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


@attrs.frozen
class _Codec:
    """What reads and writes the commands of one provider."""

    read: StructureHook
    """Reads the fields of any of them, told apart by their ``type``."""
    write: UnstructureHook
    names: Mapping[str, type[Command[Never, object]]]
    json_fields: Mapping[type[object], tuple[str, ...]]
    """The fields of each command in which the order of keys does not count."""
    package: str
    """What has to be upgraded if a newer release wrote a command."""


def _read(codec: _Codec, name: str, fields: Mapping[str, object]) -> Command[Never, object]:
    try:
        return cast("Command[Never, object]", codec.read(fields, None))
    except Exception as error:  # noqa: BLE001 - cattrs raises whatever a hook or a validator raises; any of it means the same
        what = type(error).__name__
    # Outside the handler: the error of a hook may hold what a message says.
    raise LedgerError(
        f"the ledger holds a {codec.names[name].__name__} that cannot be read ({what}): restore it from a copy"
    )


@cache
def _has_json(cls: type[Command[Never, object]]) -> bool:
    return bool(_codec_of(cls).json_fields[cls])


@cache
def _codec_of(cls: type[object]) -> _Codec:
    name = cls.provider if issubclass(cls, Command) else ""  # callers without a type checker
    provider = find_provider(name) if name else None
    if provider is None:
        unknown = f"; register the provider {name!r} first" if name else ""
        raise TypeError(f"a ledger holds commands of known providers, not {cls.__name__}{unknown}")
    codec = _codec(provider)
    if cls not in codec.json_fields:
        known = ", ".join(each.__name__ for each in codec.names.values())
        raise TypeError(f"a ledger holds {known} of the provider {name!r}, not {cls.__name__}")
    return codec


@cache
def _codec_reading(name: str, version: int) -> _Codec:
    codec = _codec(installed_provider(name.partition(".")[0]))
    if name not in codec.names or version > _VERSION:
        raise LedgerError(
            f"a newer release of {codec.package} wrote a command of the ledger ({name!r}, version {version}). Upgrade "
            f"{codec.package}, and run it again"
        )
    return codec


@attrs.frozen
class _NoCommand:
    """A member of each union, as cattrs tells only two classes or more apart. No ledger holds it."""


@cache  # costly to make
def _codec(provider: Provider[Never]) -> _Codec:
    converter = strict_converter(forbid_extra_keys=True)
    converter.register_unstructure_hook(bytes, _write_bytes)
    converter.register_structure_hook(bytes, _read_bytes)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook_factory(attrs.has, _reader)
    converter.register_unstructure_hook_factory(attrs.has, _writer)
    names = provider.command_types()
    stored_names = {cls: name for name, cls in names.items()}
    for cls in stored_names:
        reserved = [field.name for field in _fields(cls) if field.name in _OURS]
        if reserved:
            raise TypeError(f"{cls.__name__}.{reserved[0]}: a ledger has a field of this name, so give it another one")
    union: type | UnionType = _NoCommand
    for cls in stored_names:
        union = union | cls
    configure_tagged_union(union, converter, lambda cls: stored_names.get(cls, ""), tag_name="type")
    # Looked up once: a union is slow to hash.
    read, write = converter.get_structure_hook(union), converter.get_unstructure_hook(union)
    package = "dispatchkit" if provider.is_built_in else f"the package of the provider {provider.name!r}"
    return _Codec(read, write, names, {cls: _json_fields(cls) for cls in stored_names}, package)


def _fields(cls: type[object]) -> tuple[attrs.Attribute[object], ...]:
    """The fields of a class, which is an attrs class although no type checker can know it."""
    fields: tuple[attrs.Attribute[object], ...] = attrs.fields(cast("type[attrs.AttrsInstance]", cls))
    return fields


def _json_fields(cls: type[object]) -> tuple[str, ...]:
    return tuple(field.name for field in _fields(cls) if JSON_FIELD.items() <= field.metadata.items())


def _reader(cls: type[attrs.AttrsInstance], converter: Converter) -> StructureHook:
    special = {name: override(struct_hook=_as_it_is) for name in _json_fields(cls)}
    # cattrs types its keyword settings and the overrides of fields as one.
    return make_dict_structure_fn(cls, converter, **special)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _writer(cls: type[attrs.AttrsInstance], converter: Converter) -> UnstructureHook:
    special = {name: override(unstruct_hook=_same) for name in _json_fields(cls)}
    if _is_command(cls):
        for field in attrs.fields(attrs.resolve_types(cls)):
            if get_origin(field.type) is tuple:
                special[field.name] = override(unstruct_hook=_content_writer(field.type, converter))
    return make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True, **special)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def _is_command(cls: type[object]) -> bool:
    return issubclass(cls, Command)


def _content_writer(cls: object, converter: Converter) -> Callable[[tuple[object, ...]], object]:
    """Writes a tuple, such as the files of a launch. Those of the command before are not written again."""
    write = converter.get_unstructure_hook(cls)
    latest: tuple[tuple[object, ...], _Content | None] = (), None

    def write_content(value: tuple[object, ...]) -> object:
        nonlocal latest
        before, content = latest  # as one: several threads may write
        if content is not None and len(value) == len(before) and all(map(is_, value, before)):
            _thread.written += content.files
            return content
        first = len(_thread.written)
        written = write(value)
        text = _content_text(written)
        if len(text) < MIN_LENGTH:
            return written
        found = _Content(hash_of(text), text, _thread.written[first:])
        if is_constant(value):
            latest = value, found
        return found

    return write_content


def _same(value: object) -> object:
    return value


def _as_it_is(value: object, _: object) -> object:
    return value
