"""Keep passwords of addresses out of what is shown: one set of patterns for messages, reprs and lines to type.

It needs no other module, since ``--help`` loads it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["redact_typed", "redact_urls", "without_passwords"]

_NAME = r"(?:ssl)?passw\w*|pwd"

# The password may hold a bare @ or /. What looks like a port and its path is none.
_USERINFO = re.compile(r"(\w[\w+.-]*://[^:/@\s]*):(?![0-9]+[/?,])\S*(?=@)")
_PARAMETER = re.compile(r"([?&])([^=&?\s]+)=[^&\s]*")
_PAIR = re.compile(
    rf"(?<![\w?&])((?:{_NAME})\s*=\s*)(?:'(?:\\.|[^'\\])*(?:'|\Z)|(?:\\.|[^\s\\])*)(\s*)", re.IGNORECASE | re.DOTALL
)
# An address without its scheme, or with a mistyped one, where anything may have been typed.
_TYPED = re.compile(rf"[^\s'(]*(?::[^\s']*@[^\s')]*|(?:{_NAME})\s*=[^\s')]*)", re.IGNORECASE)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)


def redact_urls(text: str) -> str:
    """The text with ``***`` for each password of a URL or of a libpq address in it."""
    if "=" in text:
        text = _PAIR.sub(r"\1***\2", text)
        text = _PARAMETER.sub(lambda found: f"{found[1]}{found[2]}=***" if _is_secret(found[2]) else found[0], text)
    return _USERINFO.sub(r"\1:***", text) if "://" in text else text


def redact_typed(text: str) -> str:
    """A message that quotes what was typed, with ``***`` for whatever may be an address with a password."""
    return redact_urls(_TYPED.sub("***", text))


def without_passwords(address: str) -> str:
    """An address as a line to type shows it: without its passwords, which the environment or a file gives instead."""
    hidden = address if "?" in address else _PAIR.sub("", address)
    hidden = _USERINFO.sub(r"\1", hidden)
    hidden = _PARAMETER.sub(lambda found: "" if _is_secret(found[2]) else found[0], hidden)
    if hidden == address:
        return address
    is_cut = "://" in hidden and "?" not in hidden  # the first parameter was a password
    return (hidden.replace("&", "?", 1) if is_cut else hidden).strip()


def _is_secret(name: str) -> bool:
    return _SECRET_NAME.fullmatch(unquote(name)) is not None
