"""What a connection needs so that no byte of a request leaves late.

A request that was given up must not act afterwards, whatever ends the process that wrote it: a signal 9, a suspension,
a network that is away. So three places where bytes could wait are kept empty:

- **The kernel.** ``SO_LINGER 0`` is set when a socket is made, so the kernel drops unsent bytes with the process. An
  orderly close resets it: nothing is outstanding then. ``TCP_USER_TIMEOUT`` bounds how long a kernel retransmits.
- **The event loop.** The lowest transport has a high-water mark of zero, so a write enters the kernel at once. (uvloop
  before 0.23 collects writes until the end of a turn otherwise.)
- **TLS.** Its transport hides the one below it, where encrypted bytes wait. `Handler.backlog` counts both.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import select
import socket
import struct
import sys
from collections.abc import Callable

from aiohttp.client_proto import ResponseHandler

from dispatchkit.core.claim import ClaimAge, ClaimExpiredError
from dispatchkit.core.transport.fork import fork_safe_socket

__all__ = ["Handler", "drop_unsent", "socket_factory"]

_write = os.write

_Address = tuple[int, int, int, str, tuple[object, ...]]

_LINGER = "hh" if sys.platform == "win32" else "ii"
_DROP_UNSENT = struct.pack(_LINGER, 1, 0)
_DELIVER_UNSENT = struct.pack(_LINGER, 0, 0)


def socket_factory(*, user_timeout: float) -> Callable[[_Address], socket.socket]:
    """Make a factory of sockets that drop unsent bytes when they close.

    Args:
        user_timeout: Seconds for which the kernel retransmits bytes that nobody acknowledges.
    """
    milliseconds = math.ceil(min(user_timeout * 1000, 2**31 - 1))

    def new_socket(address: _Address) -> socket.socket:
        made = fork_safe_socket(address)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_UNSENT)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        return made

    return new_socket


def drop_unsent(transport: asyncio.Transport) -> None:
    """Close a connection at once. Bytes in the buffers of loop and kernel never leave."""
    # SO_LINGER is set, unless an orderly close that had begun has reset it.
    _linger(transport, _DROP_UNSENT)
    transport.abort()


def _linger(transport: asyncio.BaseTransport, option: bytes) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)


class Handler(ResponseHandler):
    """aiohttp's protocol, with an orderly close and a view of the bytes that have not reached the kernel."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.is_settled = True
        """Whether no request and no response is outstanding: then a close is orderly."""
        self._lowest: asyncio.WriteTransport | None = None
        self._descriptor = -1
        """The socket's number where bytes may go to the kernel without the transport: never with TLS."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, and let no write wait in the event loop."""
        super().connection_made(transport)
        self._lowest = _lowest(transport)
        self._lowest.set_write_buffer_limits(high=0)
        if self._lowest is transport and os.name == "posix":
            sock = transport.get_extra_info("socket")
            self._descriptor = -1 if sock is None else sock.fileno()

    def close(self) -> None:
        """Close the connection: with FIN if nothing is outstanding, else with RST."""
        self._settle()
        super().close()

    def abort(self) -> None:
        """Close the connection in the same way, without the farewell of TLS: so aiohttp ends idle ones."""
        self._settle()
        super().abort()

    def _settle(self) -> None:
        if self.transport is not None and self.is_settled:
            _linger(self.transport, _DELIVER_UNSENT)

    def send(self, data: bytes | memoryview, claim: ClaimAge | None) -> None:
        """Write bytes if the claim still permits it. What the kernel does not take at once stays in the `backlog`.

        A suspension between the check and the system call goes unseen. At full speed, one in eighty fell between the
        check and the end of ``transport.write``. So the system call directly follows the last check.

        Raises:
            ClaimExpiredError: It does not. Nothing was written.
            OSError: The connection is broken. Nothing was written.
        """
        transport, descriptor, taken = self.transport, self._descriptor, 0
        assert transport is not None  # noqa: S101 - the caller has just seen it open
        if claim is not None and claim.is_expired():
            raise ClaimExpiredError
        # A closed socket's number may be another's.
        if descriptor >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
            try:
                if claim is None:
                    taken = _write(descriptor, data)
                else:
                    expires_at, boottime = claim.expires_at, claim.boottime
                    if boottime() < expires_at:
                        taken = _write(descriptor, data)
                    else:
                        raise ClaimExpiredError
            except BlockingIOError:
                pass
            if taken == len(data):
                return
        transport.write(data[taken:])

    def takes_more(self) -> bool:
        """Whether the kernel has taken all that was written, and has room for a small write."""
        return not self.backlog() and self._is_writable()

    def backlog(self) -> int:
        """Bytes that were written and that the kernel has not taken yet."""
        transport = self.transport
        if transport is None or self._lowest is None:
            return 0
        size = transport.get_write_buffer_size()
        return size if self._lowest is transport else size + self._lowest.get_write_buffer_size()

    def _is_writable(self) -> bool:
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return True
        if not hasattr(select, "poll"):  # Windows
            return bool(select.select([], [sock], [], 0)[1])
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLOUT)
        return bool(poll.poll(0))


def _lowest(transport: asyncio.BaseTransport) -> asyncio.WriteTransport:
    """The transport that writes to the socket. Those of TLS stand on another one, which they do not show."""
    current: object = transport
    while (below := _below(current)) is not None:
        current = below
    return current  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


def _below(transport: object) -> object | None:
    protocol: object = getattr(transport, "_ssl_protocol", None)
    if protocol is not None:  # asyncio
        below: object = getattr(protocol, "_transport", None)
        return below
    if type(transport).__name__ != "_SSLProtocolTransport":
        return None
    # uvloop keeps both in C. Its protocol of TLS refers to the transport below and to the one above.
    [protocol] = (each for each in gc.get_referents(transport) if type(each).__name__ == "SSLProtocol")
    referents = gc.get_referents(protocol)
    return next(
        (each for each in referents if each is not transport and hasattr(each, "set_write_buffer_limits")), None
    )
