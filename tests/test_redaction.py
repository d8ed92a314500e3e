"""Passwords of addresses in what is shown."""

from __future__ import annotations

import pytest

from dispatchkit.redaction import redact_typed, redact_urls, without_passwords
from tests.cli.test_addresses import SECRET, WRONG

RIGHT = {
    "URL": (
        f"postgresql://app:{SECRET}@db:5432,h2/x?sslmode=require",
        "postgresql://app:***@db:5432,h2/x?sslmode=require",
        "postgresql://app@db:5432,h2/x?sslmode=require",
    ),
    "parameter": (
        f"postgresql://app@db/x?password={SECRET}&sslmode=require",
        "postgresql://app@db/x?password=***&sslmode=require",
        "postgresql://app@db/x?sslmode=require",
    ),
    "escaped name": (
        f"postgresql://app@db/x?a=b&%70assword={SECRET}",
        "postgresql://app@db/x?a=b&%70assword=***",
        "postgresql://app@db/x?a=b",
    ),
    "key of TLS": (
        f"postgresql://db/x?sslpassword={SECRET}",
        "postgresql://db/x?sslpassword=***",
        "postgresql://db/x",
    ),
    "keywords": (f"host=db password={SECRET} dbname=x", "host=db password=*** dbname=x", "host=db dbname=x"),
    "quoted": (f"host=db password = 'a {SECRET}' port=1", "host=db password = *** port=1", "host=db port=1"),
    "escaped quote": (f"password='a\\' {SECRET}' host=db", "password=*** host=db", "host=db"),
    "proxy": (f"http://me:{SECRET}@proxy:3128", "http://me:***@proxy:3128", "http://me@proxy:3128"),
    "bare at": (f"http://me:a@{SECRET}@proxy", "http://me:***@proxy", "http://me@proxy"),
}
PLAIN = [
    "postgresql://db:5432/x?application_name=a@b", "https://example.com:8443/a@b", "launch.db", "https://example.com",
    "postgresql://app@db/x", "host=db dbname=x", "a = b", "compass=3", "mail me@example.com",
]  # fmt: skip


@pytest.mark.parametrize(("address", "shown", "typed"), RIGHT.values(), ids=RIGHT)
def test_password_is_hidden(address: str, shown: str, typed: str) -> None:
    assert redact_urls(address) == shown
    assert redact_urls(f"no answer from {address}, twice") in {
        f"no answer from {shown}, twice",
        f"no answer from {shown} twice",
    }
    assert redact_urls(shown) == shown
    assert without_passwords(address) == typed


@pytest.mark.parametrize("text", PLAIN)
def test_text_without_password_stays(text: str) -> None:
    assert redact_urls(text) == without_passwords(text) == text


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_quoted_wrong_address_is_hidden(wrong: str) -> None:
    has_name = "=" in wrong or "@" in wrong
    for text in (wrong, f"No such command '{wrong}'.", f"Got unexpected extra argument ({wrong})"):
        if has_name and "a hunter2" not in wrong and "file:" not in wrong and "require_auth" not in wrong:
            assert SECRET not in redact_typed(text)


@pytest.mark.parametrize("name", [name for name, wrong in WRONG.items() if "://" in wrong and "@" in wrong])
def test_any_url_is_redacted(name: str) -> None:
    if "require_auth" in WRONG[name] or name == "wrong port":
        return
    assert SECRET not in redact_urls(f"it failed: {WRONG[name]} (twice)")
    assert SECRET not in without_passwords(WRONG[name])
