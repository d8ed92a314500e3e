"""What dispatchkit takes from aiohttp without a promise: internals, and behaviour that no documentation describes.

Each test is one assumption. When a release of aiohttp breaks it, the failure names the assumption and its places here.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.client
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, StreamWriter
from aioresponses import aioresponses
from yarl import URL

from dispatchkit.core.transport import connection as connection_module
from dispatchkit.core.transport.connection import socket_factory
from dispatchkit.core.transport.transport import _is_mocked
from tests.faults import tls
from tests.faults.test_nothing_left import answers, listening
from tests.wire import Listener, http

HTTP, CONNECTION, LANE, OPEN, POOL, TRANSPORT, DESCRIBE = (
    f"dispatchkit/core/transport/{name}.py"
    for name in ("http", "connection", "lane", "open", "pool", "transport", "describe")
)


@contextmanager
def assumes(what: str, *places: str) -> Iterator[None]:
    """Name the assumption and where it is used if anything in the block fails."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is raised again with what it means
        pytest.fail(
            f"aiohttp {aiohttp.__version__} changed what dispatchkit relies on.\n"
            f"Assumption: {what}.\nUsed in: {'; '.join(places)}.\nFound: {type(error).__name__}: {error}"
        )


def parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


class Recorded(ResponseHandler):
    """A protocol that records what ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.ends: list[str] = []

    def close(self) -> None:
        self.ends.append("close")
        super().close()

    def abort(self) -> None:
        self.ends.append("abort")
        super().abort()


class Client:
    """A connector as `Opener` sets it up, and connections from it."""

    def __init__(self, url: str, connector: aiohttp.TCPConnector, proxy: URL | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.connector = connector
        self.made: list[Recorded] = []
        self.connector._factory = self._make  # type: ignore[assignment]
        self.session = aiohttp.ClientSession(connector=connector, proxy=proxy)
        self.request = aiohttp.ClientRequest("POST", URL(url), loop=loop, session=self.session, proxy=proxy)

    def _make(self) -> Recorded:
        self.made.append(Recorded(asyncio.get_running_loop()))
        return self.made[-1]

    async def connect(self) -> Connection:
        return await self.connector.connect(self.request, [], aiohttp.ClientTimeout(total=None, sock_connect=5))

    async def ask(self, connection: Connection, **settings: Any) -> tuple[Any, Any]:
        """Send a request, and return the head and the stream of the answer."""
        protocol = connection.protocol
        assert protocol is not None
        assert protocol.transport is not None
        protocol.set_response_params(read_until_eof=True, auto_decompress=False, **settings)
        protocol.transport.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        return await protocol.read()


@asynccontextmanager
async def client_of(url: str, *, proxy: URL | None = None, **settings: Any) -> AsyncIterator[Client]:
    client = Client(url, aiohttp.TCPConnector(limit=0, **settings), proxy)
    try:
        yield client
    finally:
        await client.session.close()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Listener(http(200, b"yes")) as listener, client_of(listener.url) as client:
        yield client


async def test_early_bytes_are_noticed() -> None:
    with assumes("the protocol of a new connection has should_close once it has read bytes", f"{LANE}: Lane.__init__"):
        async with Listener(http(200, b"yes")) as listener, client_of(listener.url) as client:
            connection = await client.connect()
            assert connection.protocol is not None
            assert not connection.protocol.should_close
            connection.protocol.data_received(b"H")
            assert connection.protocol.should_close
            connection.close()


async def test_transport_is_handed_over(client: Client) -> None:
    with assumes(
        "a connection's transport takes another protocol, and the connector still closes the connection",
        f"{LANE}: Lane._take_over, Lane.connection_lost",
    ):
        connection = await client.connect()
        opener, lane = connection.protocol, Recorded(asyncio.get_running_loop())
        assert opener is not None
        assert connection.transport is not None
        connection.transport.set_protocol(lane)
        closed = opener.closed
        assert closed is not None
        opener.connection_lost(None)
        assert closed.done(), "the connector waits for it when it closes"
        connection.close()
        await asyncio.sleep(0.01)
        assert lane.ends == []
        assert not lane.is_connected()


async def test_tls_transport_is_handed_over(tmp_path: Path) -> None:
    with assumes("the transport above TLS takes another protocol, too", f"{LANE}: Lane._take_over"):
        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(
            lambda _, writer: writers.append(writer), "127.0.0.1", 0, ssl=tls.serving(tmp_path)
        )
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with client_of(url, ssl=tls.trusting()) as client:
            connection = await client.connect()
            assert connection.transport is not None
            lane = Recorded(asyncio.get_running_loop())
            lane.connection_made(connection.transport)
            connection.transport.set_protocol(lane)
            assert connection.transport.get_protocol() is lane
            below = connection_module._lowest(connection.transport)
            assert below is not connection.transport, "the transport below TLS is found"
            assert below.get_write_buffer_size() == 0
            connection.close()
        server.close()
        for writer in writers:
            writer.close()


async def test_socket_factory_takes_address() -> None:
    with assumes("TCPConnector(socket_factory=) is called with one address tuple", f"{CONNECTION}: socket_factory"):
        async with (
            Listener(http(200)) as listener,
            client_of(listener.url, socket_factory=socket_factory(user_timeout=5)) as client,
        ):
            (await client.connect()).close()


async def test_unsent_request_stands_for_all(client: Client) -> None:
    with assumes(
        "TCPConnector.connect(request, [], timeout) needs no request that is sent, and takes one again and again",
        f"{OPEN}: Opener.open",
    ):
        first, second = await client.connect(), await client.connect()
        assert first.protocol is not second.protocol
        first.close()
        second.close()


async def test_kept_connection_stays_open(client: Client) -> None:
    with assumes("the connector leaves a connection alone that was not released", f"{POOL}: Pool.give"):
        connection = await client.connect()
        await client.ask(connection)
        client.connector._cleanup()
        other = await client.connect()
        assert other.protocol is not connection.protocol
        assert client.made[0].is_connected()
        message, _ = await client.ask(connection)
        assert message.code == 200
        connection.close()
        other.close()


async def test_queue_returns_fed_messages(client: Client) -> None:
    with assumes("ResponseHandler.feed_data(item) wakes read(), which gives the same item", f"{HTTP}: _read_parsed"):
        connection = await client.connect()
        assert connection.protocol is not None
        item: Any = object()
        reading = asyncio.ensure_future(connection.protocol.read())
        await asyncio.sleep(0)
        connection.protocol.feed_data(item)
        assert await asyncio.wait_for(reading, 5) is item
        assert not connection.protocol.should_close
        connection.close()


async def test_forced_close_is_noticed(client: Client) -> None:
    with assumes("force_close() sets should_close", f"{LANE}: Lane.data_received"):
        connection = await client.connect()
        assert connection.protocol is not None
        assert not connection.protocol.should_close
        connection.protocol.force_close()
        assert connection.protocol.should_close
        connection.close()


async def test_parser_is_made_late(client: Client) -> None:
    with assumes(
        "set_response_params() may be called when the response has come, directly before data_received() gets it",
        f"{LANE}: Lane.data_received",
    ):
        connection = await client.connect()
        assert connection.protocol is not None
        connection.protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        connection.protocol.data_received(http(200, b"one"))
        message, payload = await connection.protocol.read()
        assert (message.code, payload.read_nowait()) == (200, b"one")
        connection.close()


async def test_unread_answer_is_not_reused() -> None:
    with assumes(
        "a connection with unread bytes, or an unfinished answer, has should_close and is closed when released",
        f"{LANE}: Lane.is_silent",
        f"{POOL}: Pool.give, Pool.close",
    ):
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"
        async with Listener(answer) as listener, client_of(listener.url) as client:
            connection = await client.connect()
            await client.ask(connection)
            assert client.made[0].should_close
            connection.release()
            assert client.made[0].ends == ["close"]


async def test_release_leaves_extra_answer_visible(client: Client) -> None:
    with assumes("a second answer on a connection sets should_close", f"{LANE}: Lane.is_silent"):
        connection = await client.connect()
        await client.ask(connection)
        assert connection.protocol is not None
        connection.protocol.data_received(http(200, b"more"))
        assert connection.protocol.should_close
        connection.close()


async def test_response_parameters_have_names() -> None:
    with assumes(
        "ResponseHandler.set_response_params and ClientSession take the limits of the parser by these names",
        f"{OPEN}: Opener.__init__",
        f"{LANE}: Lane.data_received",
    ):
        limits = {"max_line_size", "max_field_size", "max_headers"}
        assert limits <= parameters(aiohttp.ClientSession)
        assert limits | {"read_until_eof", "auto_decompress"} <= parameters(ResponseHandler.set_response_params)


async def test_body_comes_as_sent() -> None:
    with assumes("auto_decompress=False leaves the body compressed", f"{LANE}: Lane.data_received"):
        answer = http(200, b"\x1f\x8bpacked", Content_Encoding="gzip")
        async with Listener(answer) as listener, client_of(listener.url) as client:
            connection = await client.connect()
            _, payload = await client.ask(connection)
            assert payload.read_nowait() == b"\x1f\x8bpacked"
            connection.close()


async def test_answer_has_head_and_stream(client: Client) -> None:
    with assumes(
        "ResponseHandler.read() gives (message, payload): code, headers, chunked; is_eof, read_nowait",
        f"{HTTP}: _read_parsed",
    ):
        connection = await client.connect()
        message, payload = await client.ask(connection)
        assert (message.code, message.headers["content-LENGTH"], message.chunked) == (200, "3", False)
        assert message.headers.getall("Content-Length") == ["3"]
        assert payload.is_eof()
        assert payload.read_nowait() == b"yes"
        connection.close()


async def test_partial_body_can_be_read() -> None:
    with assumes("StreamReader: readany() gives what is there, at_eof() ends it", f"{HTTP}: _rest"):
        answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end"
        async with Listener(answer) as listener, client_of(listener.url) as client:
            connection = await client.connect()
            _, payload = await client.ask(connection)
            parts = b""
            while not payload.at_eof():
                parts += await payload.readany()
            assert parts == b"to the end"
            connection.close()


async def test_informational_answer_is_a_message() -> None:
    with assumes("100 and 103 come out of read() as messages of their own", f"{HTTP}: _read_parsed"):
        hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        async with Listener(hints + http(200)) as listener, client_of(listener.url) as client:
            connection = await client.connect()
            first, _ = await client.ask(connection)
            assert connection.protocol is not None
            second, _ = await connection.protocol.read()
            assert (first.code, second.code) == (103, 200)
            connection.close()


async def test_upgrade_ends_the_connection() -> None:
    with assumes(
        "a 101 sets should_close, so that no request follows it", f"{HTTP}: _read_parsed", f"{POOL}: Pool.give"
    ):
        answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        async with Listener(answer) as listener, client_of(listener.url) as client:
            connection = await client.connect()
            message, _ = await client.ask(connection)
            assert message.code == 101
            assert client.made[0].should_close
            connection.close()


async def test_exception_wakes_reader() -> None:
    with assumes("ResponseHandler.set_exception wakes the task that awaits read()", f"{HTTP}: _report_expiry"):
        async with Listener(None) as listener, client_of(listener.url) as client:
            connection = await client.connect()
            asking = asyncio.ensure_future(client.ask(connection))
            await listener.arrived.wait()
            client.made[0].set_exception(KeyError("mine"))
            with pytest.raises(KeyError):
                await asyncio.wait_for(asking, 5)
            connection.close()


async def test_lost_connection_has_exception() -> None:
    with assumes("ResponseHandler.exception() tells what ended a connection", f"{LANE}: Lane.why_closed"):
        async with Listener(http(200)) as listener, client_of(listener.url) as client:
            connection = await client.connect()
            client.made[0].connection_lost(ConnectionResetError(104, "reset"))
            error = client.made[0].exception()
            assert isinstance(error, aiohttp.ClientOSError)
            assert error.args == (104, "reset"), f"{DESCRIBE} reads what TLS said from the arguments"
            connection.close()


async def test_close_goes_through_protocol(client: Client) -> None:
    with assumes(
        "Connection.close() and the connector end a connection by close() or abort()",
        f"{LANE}: Lane.end",
        f"{POOL}: Pool",
    ):
        connection = await client.connect()
        connection.close()
        assert client.made[0].ends == ["close"]
        assert not client.made[0].is_connected()


async def test_session_close_ends_idle_connection(client: Client) -> None:
    with assumes(
        "closing the session ends released connections by close() or abort()",
        f"{LANE}: Lane.give_back",
        f"{POOL}: Pool.close",
    ):
        connection = await client.connect()
        await client.ask(connection)
        connection.release()
        await client.session.close()
        assert client.made[0].ends[:1] in (["close"], ["abort"])


async def test_writer_needs_no_request(client: Client) -> None:
    with assumes("StreamWriter(protocol, loop) writes and drains bytes as they are", f"{HTTP}: _write_in_parts"):
        connection = await client.connect()
        assert connection.protocol is not None
        connection.protocol.set_response_params(read_until_eof=True)
        writer = StreamWriter(connection.protocol, asyncio.get_running_loop())
        await writer.write(memoryview(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"))
        await writer.drain()
        message, _ = await asyncio.wait_for(connection.protocol.read(), 5)
        assert message.code == 200
        connection.close()


async def test_request_holds_proxy_credentials() -> None:
    with assumes(
        "connecting to a plain proxy puts its credentials into the request's headers, as Proxy-Authorization",
        f"{OPEN}: Opener.proxy_credentials",
    ):
        async with Listener(http(200)) as listener:
            proxy = URL(listener.url).with_user("user").with_password("word")
            async with client_of("http://127.0.0.1:9", proxy=proxy) as client:
                (await client.connect()).close()
                assert client.request.headers["Proxy-Authorization"] == "Basic dXNlcjp3b3Jk"


async def test_session_resends_reads() -> None:
    with assumes(
        "a session sends a GET a second time if its connection was dropped: the reason why none sends our requests",
        f"{HTTP}: the module's docstring",
    ):
        # The first answer announces no close, so the session reuses the connection, on which the server hangs up.
        requests: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for answers_next in (len(requests) != 1, False):
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                if answers_next:
                    writer.write(http(200))
            writer.close()

        async with listening(serve) as port, aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.get(f"http://127.0.0.1:{port}") as response:
                    await response.read()
        assert len(requests) == 3


async def test_mocks_replace_request_method() -> None:
    with assumes(
        "ClientSession._request is a function of the module aiohttp.client, and aioresponses replaces it",
        f"{TRANSPORT}: _is_mocked",
    ):
        assert vars(aiohttp.ClientSession)["_request"].__globals__ is vars(aiohttp.client)
        assert not _is_mocked()
        with aioresponses():
            assert _is_mocked()
        assert not _is_mocked()


async def test_detached_session_keeps_connector(client: Client) -> None:
    with assumes("ClientSession.detach() leaves the connector open", f"{OPEN}: Opener.reset_after_fork"):
        client.session.detach()
        assert not client.connector.closed
        await client.connector.close()


async def test_bad_answer_is_processing_error() -> None:
    with assumes("bytes that are no HTTP raise HttpProcessingError out of read()", f"{DESCRIBE}: _describe_connected"):
        async with Listener(b"SSH-2.0-OpenSSH\r\n\r\n") as listener, client_of(listener.url) as client:
            connection = await client.connect()
            with pytest.raises(HttpProcessingError):
                await asyncio.wait_for(client.ask(connection), 5)
            connection.close()


async def test_tls_error_has_a_cause() -> None:
    with assumes("ClientConnectorSSLError has the error of TLS as its cause, with a reason", f"{DESCRIBE}: _of_tls"):
        async with listening(answers(http(400))) as port, client_of(f"https://127.0.0.1:{port}") as client:
            with pytest.raises(aiohttp.ClientConnectorSSLError) as failed:
                await client.connect()
        assert isinstance(failed.value.__cause__, ssl.SSLError)
        assert failed.value.__cause__.reason


def test_failure_names_assumption() -> None:
    with (
        pytest.raises(pytest.fail.Exception, match=r"Assumption: the sky is blue\.\nUsed in: sky\.py\.\nFound: KeyE"),
        assumes("the sky is blue", "sky.py"),
    ):
        raise KeyError
