"""The library speaks of its parameters. On the command line, its messages name the options."""

from __future__ import annotations

import re

__all__ = ["as_options"]

_PHRASES = (
    (
        r"pass a context that trusts it, ssl=ssl\.create_default_context\(cafile='([^']*)'\)",
        r"trust it with --ca-file \1",
    ),
    (r"pass ssl=ssl\.create_default_context\(cafile='([^']*)'\)", r"add --ca-file \1"),
    (r"load it with context\.load_cert_chain\('([^']*)'\) and pass ssl=context", r"add --client-cert \1"),
    (r"of ssl=(?!\w)", "of --client-cert"),
    (r"(?:give them in )?proxy='([^']*)'", r"give them in --proxy \1"),
    (r"deduplicates=True \(on the command line: --deduplicates\)", "--deduplicates"),
    (r"insecure=True", "--insecure"),
    (r"canary=(\d+)", r"--canary \1"),
    (r"wire='(\w+)'", r"--wire \1"),
)
_TRANSLATIONS = tuple((re.compile(pattern), option) for pattern, option in _PHRASES)


def as_options(message: str) -> str:
    """A message of the library, with the options in place of the parameters and Python's calls."""
    for pattern, option in _TRANSLATIONS:
        message = pattern.sub(option, message)
    return message
