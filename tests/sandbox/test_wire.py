"""The values that calls, replies and ids are made of."""

from __future__ import annotations

import dispatchkit.sandbox
from dispatchkit.sandbox import Call, Ids, Reply


def test_exported_names_are_sorted():
    names = dispatchkit.sandbox.__all__
    assert names == sorted(names)
    assert all(hasattr(dispatchkit.sandbox, name) for name in names)


def test_header_lookup_ignores_case():
    call = Call("GET", "/", headers={"Request-ID": "one"})
    assert call.header("Request-ID") == call.header("request-id") == "one"
    assert call.header("Other") is None


def test_reply_is_written_to_socket():
    assert Reply(200, b"{}", {"X-A": "1"}).raw() == b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 2\r\n\r\n{}"
    assert Reply(299).raw().startswith(b"HTTP/1.1 299 Unknown\r\n")


def test_ids_keep_ranges_and_order():
    ids = Ids(range(2), [7, 5, 7], Ids([9]))
    assert list(ids) == [0, 1, 7, 5, 9]
    assert 9 in ids
    assert 8 not in ids


def test_ids_read_an_iterator_once():
    ids = Ids(number for number in (1, 2))
    assert list(ids) == list(ids) == [1, 2]
