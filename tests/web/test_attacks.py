"""What an attacker tries against the control room, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from dispatchkit import Ledger, State
from dispatchkit.web import app as app_module
from tests.web.rooms import Room, fill, serving

SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
SECRET = "postgresql://me:hunter2@db/x refused"


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    failures = [(1, State.REJECTED, SCRIPT), (2, State.UNKNOWN, SECRET)]
    await fill(tmp_path / "launch.db", failures=failures)
    async with serving(tmp_path / "launch.db") as room:
        yield room


async def raw(room: Room, request: str) -> str:
    """The answer to a request as it is, whatever a client would make of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(room.base.rpartition(":")[2]))
    writer.write(request.replace("\n", "\r\n").encode())
    answer = await asyncio.wait_for(reader.read(65536), 5)
    writer.close()
    await writer.wait_closed()
    return answer.decode(errors="replace")


async def is_stopped(tmp_path: Path) -> bool:
    async with Ledger(tmp_path / "launch.db") as ledger:
        return (await ledger.run("friday")).stopped


@pytest.mark.parametrize(
    "path", ["/", "/run?name=friday", "/target?run=friday&id=1", "/events?run=friday", "/failures"]
)
async def test_no_cookie_shows_nothing(room: Room, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(room.base + path) as response:
        text = await response.text()
    assert response.status == 403
    assert "friday" not in text
    assert "Open the link" in text


async def test_forged_cookie_is_refused(room: Room) -> None:
    port = room.base.rpartition(":")[2]
    headers = {"Cookie": f"dispatchkit_{port}=forged"}
    async with aiohttp.ClientSession() as session, session.get(room.base, headers=headers) as response:
        assert response.status == 403


async def test_link_works_once(room: Room) -> None:
    [first] = room.links
    async with room.visitor(), aiohttp.ClientSession() as session:
        async with session.get(first) as response:
            text = await response.text()
        assert response.status == 403
        assert "shows the next one" in text
        assert "Set-Cookie" not in response.headers
        assert len(room.links) == 2
        async with session.get(room.links[1], allow_redirects=False) as response:
            assert response.status == 303


@pytest.mark.parametrize("token", ["", "?token=", "?token=x", "?token=%00", "?token=" + "x" * 5000])
async def test_wrong_link_is_refused(room: Room, token: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{room.base}/open{token}") as response:
        assert response.status == 403
    assert len(room.links) == 1


async def test_prefetch_keeps_link(room: Room) -> None:
    async with aiohttp.ClientSession() as session:
        headers = {"Sec-Purpose": "prefetch;prerender"}
        async with session.get(room.links[0], headers=headers, allow_redirects=False) as response:
            assert response.status == 403
        async with session.head(room.links[0]) as response:
            assert response.status == 403
    async with room.visitor():
        pass


async def test_cookie_is_closed(room: Room) -> None:
    async with aiohttp.ClientSession() as session, session.get(room.links[0], allow_redirects=False) as response:
        cookie = response.headers["Set-Cookie"]
    assert response.headers["Location"] == "/"
    port = room.base.rpartition(":")[2]
    name, _, rest = cookie.partition("=")
    value, *marks = rest.split("; ")
    assert (name, len(value)) == (f"dispatchkit_{port}", 43)
    assert sorted(marks) == ["HttpOnly", "Path=/", "SameSite=Strict"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "a@localhost", "[::"]
)
async def test_foreign_host_is_refused(room: Room, host: str) -> None:
    async with room.visitor() as visitor:
        status, text = await visitor.get("/", Host=host)
    assert status in {400, 421}
    assert "data-csrf" not in text


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8090"])
async def test_own_host_is_served(room: Room, host: str) -> None:
    async with room.visitor() as visitor:
        assert (await visitor.get("/", Host=host))[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_foreign_page_reads_nothing(room: Room, site: str) -> None:
    async with room.visitor() as visitor:
        for path in ("/", "/run?name=friday", "/events?run=friday", "/failures?run=friday"):
            assert (await visitor.get(path, **{"Sec-Fetch-Site": site}))[0] == 403


WRITES = {
    "no origin": {"Origin": None},
    "null origin": {"Origin": "null"},
    "foreign origin": {"Origin": "http://evil.example"},
    "other port": {"Origin": "http://127.0.0.1:1"},
    "other scheme": {"Origin": "https:"},
    "cross site": {"Sec-Fetch-Site": "cross-site"},
    "same site": {"Sec-Fetch-Site": "same-site"},
    "no site": {"Sec-Fetch-Site": "none"},
    "no csrf token": {"X-CSRF-Token": None},
    "wrong csrf token": {"X-CSRF-Token": "x"},
    "odd csrf token": {"X-CSRF-Token": "\u00e9"},
}


@pytest.mark.parametrize("change", WRITES.values(), ids=WRITES.keys())
async def test_foreign_write_stops_nothing(room: Room, tmp_path: Path, change: dict[str, str | None]) -> None:
    async with room.visitor() as visitor:
        given = {"Origin": room.base, "X-CSRF-Token": await visitor.csrf(), "Sec-Fetch-Site": "same-origin", **change}
        if given["Origin"] == "https:":
            given["Origin"] = room.base.replace("http:", "https:")
        headers = {name: value for name, value in given.items() if value is not None}
        status, _ = await visitor.post({"run": "friday", "number": 1}, **headers)
    assert status == 403
    assert not await is_stopped(tmp_path)


async def test_other_browsers_token_is_refused(room: Room, tmp_path: Path) -> None:
    async with room.visitor() as one, room.visitor() as other:
        headers = {"Origin": room.base, "X-CSRF-Token": await other.csrf()}
        assert (await one.post({"run": "friday", "number": 1}, **headers))[0] == 403
    assert not await is_stopped(tmp_path)


BODIES = [
    b"",
    b"[]",
    b"1",
    b"{",
    b'{"run": 1, "number": 1}',
    b'{"run": "friday"}',
    b'{"run": "friday", "number": true}',
    b"\xff",
    b"[" * 4000,
    b'{"run": "\\ud800", "number": 1}',
]


@pytest.mark.parametrize("body", BODIES, ids=repr)
async def test_odd_body_is_refused(room: Room, tmp_path: Path, body: bytes) -> None:
    async with room.visitor() as visitor:
        headers = {"Origin": room.base, "X-CSRF-Token": await visitor.csrf(), "Content-Type": "application/json"}
        async with visitor.session.post(f"{room.base}/stop", data=body, headers=headers) as response:
            assert response.status == 400
        headers["Content-Type"] = "text/plain"  # what a form of a foreign page can send
        async with visitor.session.post(f"{room.base}/stop", data=body, headers=headers) as response:
            assert response.status == 415
    assert not await is_stopped(tmp_path)


@pytest.mark.parametrize("header", ["Content-Encoding: gzip", "Content-Type: application/json; charset=none"])
async def test_undecodable_body_is_no_failure(room: Room, tmp_path: Path, header: str) -> None:
    async with room.visitor() as visitor:
        cookie = "; ".join(f"{each.key}={each.value}" for each in visitor.session.cookie_jar)
        host = room.base.removeprefix("http://")
        head = f"POST /stop HTTP/1.1\nHost: {host}\nOrigin: {room.base}\nCookie: {cookie}\nConnection: close\n"
        kind = "" if header.startswith("Content-Type") else "Content-Type: application/json\n"
        token = f"X-CSRF-Token: {await visitor.csrf()}\n"
        answer = await raw(room, f"{head}{kind}{token}{header}\nContent-Length: 1\n\n{{")
    assert answer.split()[1] == "400"
    assert not await is_stopped(tmp_path)


@pytest.mark.parametrize("second", ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site", "X-CSRF-Token: x"])
async def test_doubled_header_stops_nothing(room: Room, tmp_path: Path, second: str) -> None:
    async with room.visitor() as visitor:
        cookie = "; ".join(f"{each.key}={each.value}" for each in visitor.session.cookie_jar)
        host = room.base.removeprefix("http://")
        head = f"POST /stop HTTP/1.1\nHost: {host}\nOrigin: {room.base}\nCookie: {cookie}\nConnection: close\n"
        head += f"Sec-Fetch-Site: same-origin\nX-CSRF-Token: {await visitor.csrf()}\nContent-Type: application/json\n"
        body = '{"run":"friday","number":1}'
        answer = await raw(room, f"{head}{second}\nContent-Length: {len(body)}\n\n{body}")
    assert answer.split()[1] == "403"
    assert not await is_stopped(tmp_path)


@pytest.mark.parametrize(("address", "status"), [("http://evil.example/", "421"), ("http://localhost/", "200")])
async def test_full_address_names_this_server(room: Room, address: str, status: str) -> None:
    async with room.visitor() as visitor:
        cookie = "; ".join(f"{each.key}={each.value}" for each in visitor.session.cookie_jar)
        answer = await raw(room, f"GET {address} HTTP/1.1\nHost: localhost\nCookie: {cookie}\nConnection: close\n\n")
    assert answer.split()[1] == status


async def test_broken_request_is_not_logged(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    for request in (
        "GET /open?token=hunter2 HTTP/9\n\n",
        "GET / HTTP/1.1\nHost: localhost\nCookie: hunter2\x00\n\n",
        "GET / HTTP/1.1\nHost: a\nHost: b\n\n",
    ):
        assert (await raw(room, request)).split()[1] == "400"
    assert not caplog.records


async def test_large_body_is_refused(room: Room) -> None:
    async with room.visitor() as visitor:
        headers = {"Origin": room.base, "X-CSRF-Token": await visitor.csrf()}
        assert (await visitor.post({"run": "x" * 100_000, "number": 1}, **headers))[0] == 413


async def test_get_stops_nothing(room: Room, tmp_path: Path) -> None:
    async with room.visitor() as visitor:
        assert (await visitor.get("/stop?run=friday&number=1"))[0] == 405
    assert not await is_stopped(tmp_path)


PATHS = ["/../app.py", "/control-room.js/../../app.py", "/%2e%2e/app.py", "/assets/../app.py", "//etc/passwd", "/%00"]


@pytest.mark.parametrize("path", PATHS)
async def test_paths_reach_no_file(room: Room, path: str) -> None:
    async with room.visitor() as visitor:
        cookie = "; ".join(f"{each.key}={each.value}" for each in visitor.session.cookie_jar)
        answer = await raw(room, f"GET {path} HTTP/1.1\nHost: localhost\nCookie: {cookie}\nConnection: close\n\n")
    assert answer.split()[1] in {"400", "404"}
    assert "root:" not in answer
    assert "import" not in answer


QUERIES = [
    *("/run", "/run?name=", "/run?name=" + "x" * 201, "/?page=0", "/?page=x", "/?page=-1", "/?page=" + "9" * 30),
    *("/run?name=a%0Ab", "/events?run=" + "x" * 201, "/failures?run=%00"),
    *("/?page=\u0661", "/events?page=0", "/failures", "/target?run=friday", "/target?run=friday&id=1&index=1"),
    *("/target?run=friday&id=0", "/target?run=friday&id=99999999999999999999", "/target?run=friday&index=-1"),
    "/target?run=friday&id=1'--",
]


@pytest.mark.parametrize("path", QUERIES)
async def test_odd_query_is_refused(room: Room, path: str) -> None:
    async with room.visitor() as visitor:
        assert (await visitor.get(path))[0] == 400


@pytest.mark.parametrize("path", ["/run?name=none", "/target?run=none&id=1", "/target?run=friday&id=77", "/nothing"])
async def test_missing_thing_is_not_found(room: Room, path: str) -> None:
    async with room.visitor() as visitor:
        assert (await visitor.get(path))[0] == 404


async def test_error_text_is_no_markup(room: Room) -> None:
    async with room.visitor() as visitor:
        _, target = await visitor.get("/target?run=friday&id=2")
        _, run = await visitor.get("/run?name=friday")
        status, refused = await visitor.get("/run?name=%3Cscript%3Ealert(1)%3C/script%3E")
        _, found = await visitor.get("/failures?run=friday&words=alert")
        async with visitor.session.get(f"{room.base}/failures?run=friday") as response:
            assert response.content_type == "application/json"
    assert "\\u003cscript\\u003ealert(1)" in target
    assert status == 404
    assert SCRIPT[9:17] in found
    for text in (target, run, refused):
        assert "<script>alert" not in text
        assert "<img src=x" not in text


async def test_pages_show_no_secret(room: Room) -> None:
    async with room.visitor() as visitor:
        _, target = await visitor.get("/target?run=friday&id=3")
        _, found = await visitor.get("/failures?run=friday&words=refused")
    for text in (target, found):
        assert "hunter2" not in text
        assert "me:***@db" in text


async def test_every_answer_has_the_headers(room: Room) -> None:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    async with room.visitor() as visitor:
        for path in ("/", "/control-room.js", "/nothing", "/open", "/failures?run=friday", "/events?run=friday"):
            async with visitor.session.get(room.base + path) as response:
                headers = response.headers
            assert headers["Content-Security-Policy"] == policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store"
            assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert headers["Server"] == "dispatchkit"


async def test_page_has_no_inline_code(room: Room) -> None:
    async with room.visitor() as visitor:
        for path in ("/", "/run?name=friday", "/target?run=friday&id=1"):
            _, text = await visitor.get(path)
            assert " style=" not in text
            assert "<style" not in text
            assert " on" not in text.partition("<body")[2].partition(">")[0]
            assert text.count("<script") == 2
            assert 'src="/control-room.js"' in text
        _, script = await visitor.get("/control-room.js")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in script


async def test_streams_are_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "_MAX_STREAMS", 2)
    async with room.visitor() as visitor:
        async with visitor.events("run=friday") as one, visitor.events("page=1") as other:
            await anext(one)
            await anext(other)
            assert (await visitor.get("/events?run=friday"))[0] == 503
        async with asyncio.timeout(10):
            while (await visitor.get("/run?name=friday"))[0] == 200:
                async with visitor.session.get(f"{room.base}/events?run=friday") as response:
                    if response.status == 200:
                        break
                await asyncio.sleep(0.05)


async def test_failure_shows_no_traceback(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("at /secret/place")

    monkeypatch.setattr(app_module, "tell_story", fail)
    async with room.visitor() as visitor:
        status, text = await visitor.get("/target?run=friday&id=1")
    assert status == 500
    assert "secret" not in text
    assert "at /secret/place" in caplog.text


HALF_SENT = ["", "GET / HTTP/1.1\r\nHost: loc", "GET / HTTP/1.1\r\nHost: localhost\r\n"]


@pytest.mark.parametrize("sent", HALF_SENT, ids=["nothing", "header", "headers"])
@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
async def test_half_sent_request_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: str, *, is_second: bool
) -> None:
    monkeypatch.setattr("dispatchkit.web.serve._HEAD_TIMEOUT", 0.3)
    async with serving(tmp_path / "launch.db") as room:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(room.base.rpartition(":")[2]))
        if is_second:
            writer.write(b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"</svg>"), 5)
        writer.write(sent.encode())
        assert await asyncio.wait_for(reader.read(), 5) == b"", "the server closes the connection"
        writer.close()


async def test_half_sent_body_is_refused(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "_BODY_TIMEOUT", 0.2)
    async with room.visitor() as visitor:
        cookie = "; ".join(f"{each.key}={each.value}" for each in visitor.session.cookie_jar)
        host = room.base.removeprefix("http://")
        head = f"POST /stop HTTP/1.1\nHost: {host}\nOrigin: {room.base}\nCookie: {cookie}\nConnection: close\n"
        head += f"Sec-Fetch-Site: same-origin\nX-CSRF-Token: {await visitor.csrf()}\nContent-Type: application/json\n"
        answer = await raw(room, f'{head}Content-Length: 30\n\n{{"run":')
    assert answer.split()[1] == "408"
    assert not await is_stopped(tmp_path)
