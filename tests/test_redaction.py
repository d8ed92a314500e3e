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


# No pattern tells their secret from a name; they are refused without being quoted.
UNTOLD = {"unquoted blank", "file URI", "opaque", "memory", "sqlite", "refused parameter"}
TOLD = {name: wrong for name, wrong in WRONG.items() if name not in UNTOLD}


def test_most_wrong_addresses_are_told() -> None:
    assert len(TOLD) >= 17


@pytest.mark.parametrize("wrong", TOLD.values(), ids=TOLD)
@pytest.mark.parametrize("form", ["{}", "No such command '{}'.", "Got unexpected extra argument ({})"])
def test_quoted_wrong_address_is_hidden(wrong: str, form: str) -> None:
    assert SECRET not in redact_typed(form.format(wrong))


@pytest.mark.parametrize(
    "wrong", [wrong for name, wrong in TOLD.items() if "://app:" in wrong and name != "wrong port"]
)
def test_any_url_is_redacted(wrong: str) -> None:
    assert SECRET not in redact_urls(f"it failed: {wrong} (twice)")
    assert SECRET not in without_passwords(wrong)
