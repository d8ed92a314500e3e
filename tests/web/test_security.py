"""Links, sessions and the checks of a request's headers, one by one."""

from __future__ import annotations

import pytest

from dispatchkit.web.security import Access, is_our_host, our_hosts


def test_token_admits_once() -> None:
    access = Access()
    assert access.admit("") is None
    token = access.new_link()
    assert access.admit(token[:-1]) is None
    cookie = access.admit(token)
    assert cookie is not None
    assert access.session(cookie) is not None
    assert access.admit(token) is None


def test_new_link_replaces_old() -> None:
    access = Access()
    old, new = access.new_link(), access.new_link()
    assert access.admit(old) is None
    assert access.admit(new) is not None


def test_sessions_are_bounded() -> None:
    access = Access()
    cookies = [access.admit(access.new_link()) for _ in range(70)]
    known = [access.session(cookie) is not None for cookie in cookies]
    assert known == [False] * 6 + [True] * 64
    sessions = {session.csrf for cookie in cookies if (session := access.session(cookie)) is not None}
    assert len(sessions) == 64


def test_secrets_stay_unshown() -> None:
    access = Access()
    cookie = access.admit(access.new_link())
    assert cookie is not None
    session = access.session(cookie)
    assert session is not None
    assert session.csrf not in repr(session)
    assert cookie not in repr(vars(access)), "it keeps hashes only"


@pytest.mark.parametrize(
    ("header", "on_loopback", "on_network"),
    [
        ("localhost", True, True),
        ("LOCALHOST:80", True, True),
        ("127.0.0.1", True, True),
        ("[::1]:8090", True, True),
        ("192.0.2.1:8090", False, True),
        ("evil.example", False, False),
        ("localhost.evil.example", False, False),
        ("me@localhost", False, False),
        ("127.0.0.1/evil.example", False, False),
        ("127.0.0.1?evil.example", False, False),
        ("[::1", False, False),
        ("", False, False),
        (None, False, False),
    ],
)
def test_host_is_checked(header: str | None, on_loopback: bool, on_network: bool) -> None:
    assert is_our_host(header, our_hosts("127.0.0.1"), loopback=True) is on_loopback
    assert is_our_host(header, our_hosts("0.0.0.0"), loopback=False) is on_network
