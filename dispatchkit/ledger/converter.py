"""Turn a command into the fields that a ledger holds, and back, as its provider's classes have them.

A field with its default value is left out. Bytes are in Base64, and large ones are a file of their own (`files`):
``{"file":"91be...","size":70000}``. A JSON field (`JSON_FIELD`) keeps the order of its keys, since a repeat must send
the same bytes. A long field is taken out, since it is a content (`contents`).

If older fields no longer fit a changed class, raise `VERSION` by one. `read_command` must then read both versions.
"""

from __future__ import annotations

import json
import threading
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from operator import is_
from types import UnionType
from typing import Never, cast, get_origin

import attrs
from cattrs import Converter
from cattrs.dispatch import StructureHook, UnstructureHook
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.strategies import configure_tagged_union

from dispatchkit.core.command import JSON_FIELD, Command
from dispatchkit.core.decode import strict_converter
from dispatchkit.errors import LedgerError
from dispatchkit.ledger.contents import FIELD, LONG, MIN_LENGTH, hash_of
from dispatchkit.ledger.files import FILE_BYTES, File, file_of, known_file
from dispatchkit.ledger.template import is_constant
from dispatchkit.providers import Provider, find_provider, installed_provider

__all__ = ["VERSION", "LargeCommandError", "LongField", "has_json", "read_command", "write_command", "write_json"]

VERSION = 1
"""The version of the fields."""
_OURS = ("type", "version", FIELD)

# Built once: json.dumps builds an encoder for every call that asks for anything special.
write_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class LargeCommandError(Exception):
    """To encode a command would block the event loop, so a thread should do it."""


@attrs.frozen
class LongField:
    """A long field."""

    name: str
    """Its hash."""
    text: str
    files: Sequence[File] = ()


def write_command(
    command: Command[Never, object], *, may_wait: bool
) -> tuple[dict[str, object], Mapping[str, LongField], Sequence[File]]:
    """The fields of a command with its ``type``, those that are contents, and its files.

    Args:
        command: The command.
        may_wait: Whether a large command is written: the hash of a file of 70 MiB takes a tenth of a second or more.

    Raises:
        TypeError: It is no command that a ledger can hold.
        LargeCommandError: The command is large, and ``may_wait`` is false.
    """
    _thread.may_wait, _thread.written = may_wait, []
    fields = cast("dict[str, object]", _codec_of(type(command)).write(command))
    contents = _take_contents(fields)
    files, _thread.written = _thread.written, []
    return fields, contents, files


def _take_contents(fields: dict[str, object]) -> dict[str, LongField]:
    """Take the long fields out of a command's fields."""
    taken: dict[str, LongField] = {}
    for field, value in fields.items():
        if isinstance(value, LongField):
            taken[field] = value
        elif isinstance(value, (dict, list)) or (isinstance(value, str) and len(value) >= MIN_LENGTH):
            text = _content_text(cast("object", value))
            if len(text) >= MIN_LENGTH:
                taken[field] = LongField(hash_of(text), text)
    for field in taken:
        del fields[field]
    return taken


def read_command(
    name: str, version: int, fields: Mapping[str, object], files: Mapping[str, File], *, partial: bool
) -> Command[Never, object]:
    """The command of its fields.

    Args:
        name: Its type, as the registry has it.
        version: The version of the fields.
        fields: The fields with their ``type`` and their contents.
        files: Its files, by hash.
        partial: Whether zeros stand for other files.

    Raises:
        LedgerError: Its provider is not installed, a newer release wrote it, or it is damaged.
        ImportError: Its provider's package cannot be loaded.
    """
    codec = _codec_reading(name, version)
    _thread.known, _thread.partial = files, partial
    try:
        return cast("Command[Never, object]", codec.read(fields, None))
    except Exception as error:  # noqa: BLE001 - cattrs raises whatever a hook or a validator raises; any of it means the same
        what = type(error).__name__
    finally:
        _thread.known = {}
    # Outside the handler: the error of a hook may hold what a message says.
    raise LedgerError(
        f"the ledger holds a {codec.names[name].__name__} that cannot be read ({what}): restore it from a copy"
    )


@cache
def has_json(cls: type[Command[Never, object]]) -> bool:
    """Whether a command has a field in which the order of keys does not count."""
    return bool(_codec_of(cls).json_fields[cls])


class _Thread(threading.local):
    """What this thread encodes or decodes."""

    may_wait: bool = True
    """See `write_command`."""

    def __init__(self) -> None:
        self.written: list[File] = []
        """The files of the command, so far."""
        self.known: Mapping[str, File] = {}
        """The files of the command by hash."""
        self.partial = False
        """Whether zeros stand for other files. See `read_command`."""


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
    text = write_json(value)
    if len(text) >= LONG and not _thread.may_wait:
        raise LargeCommandError
    return text


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
    if name not in codec.names or version > VERSION:
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
    latest: tuple[tuple[object, ...], LongField | None] = (), None

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
        found = LongField(hash_of(text), text, _thread.written[first:])
        if is_constant(value):
            latest = value, found
        return found

    return write_content


def _same(value: object) -> object:
    return value


def _as_it_is(value: object, _: object) -> object:
    return value
