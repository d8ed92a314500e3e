"""The key of a command: two commands with the same key are the same.

A key begins with the target of its command, so that all commands with a target are found by the bounds of their keys.
The order of keys in JSON fields does not count.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Never

from dispatchkit.core.command import Command
from dispatchkit.ledger.contents import CommandText, sorted_json
from dispatchkit.ledger.converter import has_json

__all__ = ["KEY_BYTES", "is_intact", "is_same", "key_of", "keys_of"]

KEY_BYTES = 20
"""Length of a key: a target and 96 bits of a hash, or 160 bits of a hash."""
_TARGET_BYTES = 8


def key_of(command: Command[Never, object], text: str) -> bytes:
    """The key of a command and its text: its target, and a hash.

    The targets of a list are often in order. Then so are the keys, and an index of them grows at its end.
    """
    if has_json(type(command)):
        text = sorted_json(text)
    digest = sha256(text.encode()).digest()
    target = command.target
    if type(target) is int and 0 < target < 2**63:
        return target.to_bytes(_TARGET_BYTES, "big") + digest[: KEY_BYTES - _TARGET_BYTES]
    return digest[:KEY_BYTES]


def keys_of(target: int) -> tuple[bytes, bytes]:
    """The bounds of the keys of commands with a target: the first one, and the one after the last. See `key_of`.

    >>> [int.from_bytes(key, "big") for key in keys_of(7)]
    [7, 8]
    """
    return target.to_bytes(_TARGET_BYTES, "big"), (target + 1).to_bytes(_TARGET_BYTES, "big")


def is_intact(text: str, key: bytes) -> bool:
    """Whether a text is that of the planned command, with its contents but for files. See `is_same`."""
    return not (isinstance(text, CommandText) and not text.is_complete) and is_same(text, key)


def is_same(text: str, key: bytes) -> bool:
    """Whether a text has this key. The order of keys in JSON fields does not count."""
    if _fits(text, key):
        return True
    try:
        return _fits(sorted_json(text), key)
    except (ValueError, RecursionError):
        return False


def _fits(text: str, key: bytes) -> bool:
    digest = sha256(text.encode()).digest()
    return key[_TARGET_BYTES:] == digest[: KEY_BYTES - _TARGET_BYTES] or key == digest[:KEY_BYTES]
