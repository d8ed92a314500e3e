"""The routes of the control room. All but the link and three files need its cookie. One route writes: the stop."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from importlib.resources import files
from typing import cast

import attrs
from aiohttp import web
from aiohttp.typedefs import Middleware

from dispatchkit.core.clock import SYSTEM
from dispatchkit.ledger.ledger import Ledger
from dispatchkit.ledger.run import Run
from dispatchkit.ledger.run_snapshot import RunStop, nothing_to_stop, stop_run
from dispatchkit.ledger.store import MAX_NUMBER, Store
from dispatchkit.plots import STYLE
from dispatchkit.web import pages
from dispatchkit.web.feed import Feed, Feeds
from dispatchkit.web.look import Frame, GoneError, tell_story
from dispatchkit.web.security import HEADERS, Access, Session, is_loopback, is_our_host, is_own_fetch, is_own_write
from dispatchkit.web.source import AwayError, LedgerSource
from dispatchkit.web.watch import RunFeed, runs_feed

__all__ = ["ControlRoom", "build_app"]

_LOG = logging.getLogger("dispatchkit.web")

_MAX_BODY = 4096
"""Bytes of a request's body."""
_BODY_TIMEOUT = 30.0
"""Seconds in which a request's body must come."""
_MAX_STREAMS = 64
"""Streams of events at once."""
_WRITE_TIMEOUT = 20.0
"""Seconds after which a viewer that reads nothing is dropped."""
_FIRST_LOOK = 1.0
"""Seconds that a page waits for its first data. What comes later comes by its stream."""
_SESSION = web.RequestKey("session", Session)
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#1f4f8f"/>'
    '<path d="M3 11V9h2v2zm4 0V6h2v5zm4 0V3h2v8z" fill="#fff"/></svg>'
)
_NEW_LINK = (
    "A link works once. The terminal in which 'dispatchkit web' runs shows the next one.",
    "If it is gone, end the command with Ctrl-C and start it again.",
)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.frozen(kw_only=True)
class ControlRoom:
    """What a server needs to know."""

    source: LedgerSource
    where: str
    """The ledger, as a page names it, without a password."""
    resume_line: Callable[..., str] = attrs.field(repr=False)
    """Makes the line that resumes a run, with more options."""
    access: Access = attrs.field(factory=Access, repr=False)
    hosts: frozenset[str] = frozenset({"localhost"})
    """The names of this server."""
    host: str = "127.0.0.1"
    """Where it listens."""
    is_secure: bool = False
    """Whether it serves TLS."""
    cookie: str = "dispatchkit"
    """The name of its cookie. Cookies do not know ports, so each server needs a name of its own."""
    on_admitted: Callable[[], None] = attrs.field(default=lambda: None, repr=False)
    """Called once a link was used."""


class _Routes:
    """The handlers of one server."""

    def __init__(self, room: ControlRoom) -> None:
        self._room = room
        self._feeds = Feeds()
        self._streams = 0

    def add_to(self, app: web.Application) -> None:
        """Add the routes, and the end of the streams."""
        app.router.add_get("/open", self.open, allow_head=False)
        app.router.add_get("/", self.runs, allow_head=False)
        app.router.add_get("/run", self.run, allow_head=False)
        app.router.add_get("/target", self.target, allow_head=False)
        app.router.add_get("/events", self.events, allow_head=False)
        app.router.add_get("/alive", self.alive, allow_head=False)
        app.router.add_get("/failures", self.failures, allow_head=False)
        app.router.add_post("/stop", self.stop)
        for name, (kind, body) in _assets().items():
            app.router.add_get(f"/{name}", _serve(kind, body), allow_head=False)
        app.on_shutdown.append(self._end_streams)
        app.on_cleanup.append(self._close)

    async def _end_streams(self, app: web.Application) -> None:
        del app
        await self._feeds.close()

    async def _close(self, app: web.Application) -> None:
        del app
        await self._room.source.close()

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Take a link, and give a cookie."""
        if "prefetch" in request.headers.get("Sec-Purpose", ""):  # it would use the link up
            return _page(pages.refusal("Not now", "A link is not opened in advance."), status=403)
        cookie = self._room.access.admit(request.query.get("token", ""))
        if cookie is None:
            return _page(pages.refusal("This link was used, or is not valid", *_NEW_LINK), status=403)
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            self._room.cookie, cookie, httponly=True, samesite="Strict", path="/", secure=self._room.is_secure
        )
        self._room.on_admitted()
        return response

    async def runs(self, request: web.Request) -> web.StreamResponse:
        """The list of runs."""
        data = await self._first(self._runs_feed(_page_number(request)))
        return _page(pages.runs_page(data=data, **self._of_page(request)))

    async def run(self, request: web.Request) -> web.StreamResponse:
        """One run."""
        name = _text(request, "name")
        data = await self._first(self._run_feed(name))
        if "gone" in data.get("run", {}):
            return _page(pages.refusal("No such run", f"The ledger holds no run {name!r}."), status=404)
        return _page(pages.run_page(name, data=data, **self._of_page(request)))

    async def target(self, request: web.Request) -> web.StreamResponse:
        """One target's story."""
        name = _text(request, "run")
        index = _number(request, "index", minimum=0)
        number = _number(request, "id", maximum=2**63 - 1)
        if (index is None) == (number is None):
            raise web.HTTPBadRequest

        async def look(ledger: Ledger, store: Store) -> Frame:
            return await tell_story(ledger, store, name, index=index, target=number)

        heading = f"Target {number}" if index is None else f"Target at index {index}"
        story = await self._room.source.read(look)
        return _page(pages.target_page(name, heading, data={"story": story}, **self._of_page(request)))

    async def failures(self, request: web.Request) -> web.StreamResponse:
        """The failures that fit a search."""
        feed = self._run_feed(_text(request, "run"))
        state, kind = request.query.get("state"), request.query.get("kind")
        found = await feed.search(request.query.get("words", "")[:100], state=state, kind=kind)
        return web.json_response(found)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The stream of a run, or of one page of the list."""
        if self._streams >= _MAX_STREAMS:
            raise web.HTTPServiceUnavailable
        feed = (
            self._run_feed(_text(request, "run")) if "run" in request.query else self._runs_feed(_page_number(request))
        )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **HEADERS})
        self._streams += 1
        try:
            await response.prepare(request)
            await response.write(b"retry: 2000\n\n")
            async with aclosing(feed.follow()) as stream:
                async for events in stream:
                    async with asyncio.timeout(_WRITE_TIMEOUT):
                        await response.write(events)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._streams -= 1
        return response

    async def alive(self, request: web.Request) -> web.StreamResponse:
        """Whether the server is there, and knows the browser, for a page whose stream ended."""
        del request
        return web.Response(status=204)

    async def stop(self, request: web.Request) -> web.StreamResponse:
        """Stop a run, as ``dispatchkit stop-run`` does."""
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType
        try:
            async with asyncio.timeout(_BODY_TIMEOUT):
                body: object = json.loads(await request.read())
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except (ValueError, RecursionError, web.RequestPayloadError):
            raise web.HTTPBadRequest from None
        fields = cast("Mapping[str, object]", body if isinstance(body, dict) else {})
        name, number = fields.get("run"), fields.get("number")
        if not isinstance(name, str) or not _is_name(name) or type(number) is not int:
            raise web.HTTPBadRequest

        async def stopping(ledger: Ledger, store: Store) -> RunStop | str:
            run = await store.run(name)
            if run is None or run.number != number:  # it was deleted, and perhaps made again
                return f"The ledger holds no such run {name!r} any more: nothing was stopped."
            return await stop_run(ledger, run, self._room.resume_line) or nothing_to_stop(name)

        stopped = await self._room.source.read(stopping)
        if isinstance(stopped, str):
            return web.json_response({"nothing": stopped})
        _LOG.info("run %r was stopped from the control room", name)
        return web.json_response(
            {
                "accepted": stopped.accepted(),
                "confirmed": stopped.confirmed(),
                "wait": max(0.0, (stopped.until - SYSTEM.now()).total_seconds()),
            }
        )

    def _of_page(self, request: web.Request) -> dict[str, str]:
        return {"where": self._room.where, "csrf": request[_SESSION].csrf}

    def _runs_feed(self, page: int) -> Feed:
        return self._feeds.get(("runs", page), lambda: runs_feed(self._room.source, page))

    def _run_feed(self, name: str) -> RunFeed:
        def make() -> RunFeed:
            return RunFeed(self._room.source, name, cast("Callable[[Run], str]", self._room.resume_line))

        return cast("RunFeed", self._feeds.get(("run", name), make))

    async def _first(self, feed: Feed) -> Mapping[str, Mapping[str, object]]:
        """What a feed knows; for a new one, its first look, unless that takes long."""
        try:
            await asyncio.wait_for(feed.look_once(), _FIRST_LOOK)
        except (AwayError, TimeoutError) as error:
            return {"ledger": {"away": str(error) or "The ledger does not answer."}}
        return feed.latest


def build_app(room: ControlRoom) -> web.Application:
    """The application of a server."""
    app = web.Application(middlewares=[_answer, _guard(room)], client_max_size=_MAX_BODY)
    _Routes(room).add_to(app)
    return app


@web.middleware
async def _answer(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Make a page of every error, and give every answer its headers."""
    try:
        response = await handler(request)
    except web.HTTPException as refused:
        response = _refused(refused.status, refused.reason)
    except GoneError as error:
        response = _page(pages.refusal("Not found", str(error)), status=404)
    except AwayError as error:
        response = _away(request, str(error))
    except Exception:  # noqa: BLE001 - the server goes on, and its own page of an error has none of the headers
        _LOG.exception("the control room failed")
        response = _refused(500, "The control room failed: its log says why")
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


def _guard(room: ControlRoom) -> Middleware:
    """Let in what a page of this server sends, from a browser that has opened a link."""
    loopback = is_loopback(room.host)
    scheme = "https" if room.is_secure else "http"

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        named = [request.headers.get("Host")]
        if not request.raw_path.startswith("/"):  # a full address, as for a proxy: it names a host, too
            named.append(request.url.raw_authority)
        if not all(is_our_host(host, room.hosts, loopback=loopback) for host in named):
            return _page(
                pages.refusal("Not this server", "Open the address that 'dispatchkit web' printed."), status=421
            )
        if request.path in _PUBLIC and request.method == "GET":
            return await handler(request)
        session = room.access.session(request.cookies.get(room.cookie))
        if session is None:
            return _page(pages.refusal("Open the link that 'dispatchkit web' printed", *_NEW_LINK), status=403)
        if any(len(request.headers.getall(name, ())) > 1 for name in _SINGLE) or not is_own_fetch(request.headers):
            return _refused(403, "Another page sent this request")
        if request.method != "GET":
            if not is_own_write(request.headers, scheme):
                return _refused(403, "Another page sent this request")
            given = request.headers.get("X-CSRF-Token", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, session.csrf.encode()):
                return _refused(403, "The page is too old: load it again")
        request[_SESSION] = session
        return await handler(request)

    return guard


def _away(request: web.Request, why: str) -> web.Response:
    if request.path in {"/stop", "/failures"}:
        return web.json_response({"error": why}, status=503)
    return _page(pages.refusal("The ledger is away", why, "Load the page again once it is back."), status=503)


def _refused(status: int, reason: str) -> web.Response:
    return _page(pages.refusal(f"{status}: {reason}"), status=status)


def _page(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")


def _text(request: web.Request, name: str) -> str:
    value = request.query.get(name, "")
    if not _is_name(value):
        raise web.HTTPBadRequest
    return value


def _is_name(value: str) -> bool:
    """Whether a run may have this name. A surrogate is no text for a ledger."""
    return 0 < len(value) <= 200 and value.isprintable()


def _page_number(request: web.Request) -> int:
    return _number(request, "page") or 1


def _number(request: web.Request, name: str, *, minimum: int = 1, maximum: int = MAX_NUMBER) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20 and minimum <= int(text) <= maximum):
        raise web.HTTPBadRequest
    return int(text)


def _assets() -> Mapping[str, tuple[str, bytes]]:
    """The files of the pages, by name: read once, so that no path of a request names a file."""
    folder = files("dispatchkit.web").joinpath("assets")
    return {
        "control-room.css": ("text/css", folder.joinpath("control-room.css").read_bytes() + STYLE.encode()),
        "control-room.js": ("text/javascript", folder.joinpath("control-room.js").read_bytes()),
        "icon.svg": ("image/svg+xml", _ICON.encode()),
    }


_SINGLE = ("Origin", "Sec-Fetch-Site", "X-CSRF-Token")
"""Headers that are checked. A browser sends each once, so a second one is another program's."""
_PUBLIC = frozenset({"/open", "/control-room.css", "/control-room.js", "/icon.svg"})


def _serve(kind: str, body: bytes) -> _Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        del request
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return serve
