"""Messages of the library, in the words of the command line."""

from __future__ import annotations

import re

import pytest

from dispatchkit.cli.option_names import as_options
from dispatchkit.core.transport import describe

TEXTS = [*describe._CERTIFICATE.values(), *describe._TLS.values()]
PYTHON = re.compile(r"\\b(?:ssl|proxy|insecure|wire|deduplicates)=|load_cert_chain|create_default_context")


@pytest.mark.parametrize("text", TEXTS)
def test_options_replace_parameters(text: str) -> None:
    assert PYTHON.search(as_options(text)) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("give them in proxy='http://user:***@host:port'", "give them in --proxy http://user:***@host:port"),
        ("proxy='http://user:***@host:port'", "give them in --proxy http://user:***@host:port"),
        ("use wire='json'", "use --wire json"),
        ("a token (insecure=True allows it)", "a token (--insecure allows it)"),
        ("deduplicates=True (on the command line: --deduplicates) repeats", "--deduplicates repeats"),
    ],
)
def test_phrase_becomes_option(text: str, shown: str) -> None:
    assert as_options(text) == shown
