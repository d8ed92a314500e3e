"""What a printed line says of an address."""

from __future__ import annotations

import pytest

from dispatchkit.redaction import without_passwords


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("postgresql://app:hunter2@db/x", "postgresql://app@db/x"),
        ("postgresql://app:hun:ter2@db/x?password=hunter2&sslmode=require", "postgresql://app@db/x?sslmode=require"),
        ("postgresql://db/x?sslmode=require&sslpassword=hunter2", "postgresql://db/x?sslmode=require"),
        ("postgresql://db/x?pass%77ord=hunter2", "postgresql://db/x"),
        ("host=h password=hunter2 dbname=x", "host=h dbname=x"),
        ("host=h password='aa hunter2' dbname=x", "host=h dbname=x"),
        (r"password=aa\ hunter2 host=h", "host=h"),
        ("host=h sslpassword=hunter2 options=a&b", "host=h options=a&b"),
        ("host=h password=hunter2://x", "host=h"),
        ("http://u:hunter2@proxy:3128", "http://u@proxy:3128"),
        ("a&b ?.db", "a&b ?.db"),
    ],
)
def test_printed_address_has_no_password(typed: str, printed: str) -> None:
    assert without_passwords(typed) == printed
