"""A command as text, and back: what a ledger holds of it, and what a later release must still be able to read.

    {"type":"direct.start","version":1,"dispatch_id":7}

The fields are those of the command's class; what has its default is left out. A file is held with its contents, in
Base64. The order of the content's fields is kept, since a repeat must send the same bytes; it does not count where two
commands are compared.

When a class changes so that its older texts no longer fit, its version goes up by one, and `_read` learns to read both.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from typing import Never, cast

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from dispatchkit.altcraft.commands import ActivateMailing, DeactivateMailing, LaunchBroadcast
from dispatchkit.altcraft.models import Attachment
from dispatchkit.core.command import Command, UnexpectedResponseError
from dispatchkit.core.decode import fields_of, read_json, strict_converter
from dispatchkit.direct.commands import StartDispatch, StopDispatch
from dispatchkit.errors import LedgerError

__all__ = ["KEY_BYTES", "decode", "encode", "key"]

KEY_BYTES = 16
"""Length of a key: 128 bits of a hash. Among 10**12 commands, two of one key are as likely as one in 10**14."""

_VERSION = 1
_TYPES: Mapping[str, type[Command[Never, object]]] = {
    "direct.start": StartDispatch,
    "direct.stop": StopDispatch,
    "altcraft.activate": ActivateMailing,
    "altcraft.launch": LaunchBroadcast,
    "altcraft.deactivate": DeactivateMailing,
}
_NAMES: Mapping[type[object], str] = {kind: name for name, kind in _TYPES.items()}

# Built once: json.dumps builds an encoder for every call that asks for anything special.
_write = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_write_sorted = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def encode(command: Command[Never, object]) -> tuple[bytes, str]:
    """The key of a command, by which two of them are the same, and its text.

    Raises:
        TypeError: It is no command that a ledger can hold.
    """
    name = _NAMES.get(type(command))
    if name is None:
        known = ", ".join(cls.__name__ for cls in _TYPES.values())
        raise TypeError(f"a ledger holds {known}, not {type(command).__name__}")
    fields = cast("dict[str, object]", _converter().unstructure(command))
    said: dict[str, object] = {"type": name, "version": _VERSION, **fields}
    text = _write(said)
    return sha256((_write_sorted(said) if "content" in said else text).encode()).digest()[:KEY_BYTES], text


def key(command: Command[Never, object]) -> bytes:
    """What two commands share if they are the same.

    Raises:
        TypeError: It is no command that a ledger can hold.
    """
    return encode(command)[0]


def decode(text: str) -> Command[Never, object]:
    """The command of a text.

    Raises:
        LedgerError: A newer release wrote it, or it is damaged.
    """
    try:
        fields = fields_of(read_json(text.encode())) or {}
    except UnexpectedResponseError:
        fields = {}
    name, version = fields.pop("type", None), fields.pop("version", None)
    if not isinstance(name, str) or type(version) is not int:
        raise LedgerError("the ledger holds what is no command: it is damaged, so restore it from a copy")
    cls = _TYPES.get(name)
    if cls is None or version > _VERSION:
        raise LedgerError(
            f"the ledger holds a command {name!r} of version {version}, which a newer release of dispatchkit wrote: "
            "upgrade dispatchkit, and run it again"
        )
    return _read(cls, fields)


def _read(cls: type[Command[Never, object]], fields: Mapping[str, object]) -> Command[Never, object]:
    try:
        return _converter().structure(fields, cls)
    except Exception as error:  # noqa: BLE001 - cattrs raises whatever a hook or a validator raises; any of it means the same
        what = type(error).__name__
    # Outside the handler: the error of a hook may hold what a message says.
    raise LedgerError(f"the ledger holds a {cls.__name__} that cannot be read ({what}): restore it from a copy")


@cache  # costly to make
def _converter() -> Converter:
    converter = strict_converter()
    converter.register_unstructure_hook(bytes, lambda data: base64.b64encode(data).decode())
    converter.register_structure_hook(bytes, lambda text, _: base64.b64decode(text, validate=True))
    kinds = cast("list[type[attrs.AttrsInstance]]", [Attachment, *_TYPES.values()])
    for cls in kinds:
        attrs.resolve_types(cls)
        # JSON already is what a content holds.
        content = override(struct_hook=_as_it_is, unstruct_hook=_same)
        special = {field.name: content for field in attrs.fields(cls) if field.name == "content"}
        # cattrs types its keyword settings and the overrides of fields as one.
        to_text = make_dict_unstructure_fn(cls, converter, _cattrs_omit_if_default=True, **special)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        from_text = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True, **special)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        converter.register_unstructure_hook(cls, to_text)
        converter.register_structure_hook(cls, from_text)
    return converter


def _same(value: object) -> object:
    return value


def _as_it_is(value: object, _: object) -> object:
    return value
