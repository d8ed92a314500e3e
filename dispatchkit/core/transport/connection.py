"""Connections that never send the bytes of a request late.

An abandoned request must not act later, even after a SIGKILL, a suspension or a network failure. So three buffers are
kept empty:

- **Kernel.** Sockets are made with ``SO_LINGER 0``, so the kernel drops unsent bytes when the process ends. An orderly
  close resets the option, since nothing is outstanding then. ``TCP_USER_TIMEOUT`` bounds retransmissions.
- **Event loop.** The lowest transport has a high-water mark of zero, so that writes enter the kernel at once.
  Otherwise, uvloop before 0.23 collects writes until the end of a loop iteration.
- **TLS.** Encrypted bytes may wait in the hidden transport below. `Handler.backlog` counts both transports.
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

__all__ = ["Handler", "UnwrittenError", "drop_unsent", "socket_factory"]

_write = os.write

_Address = tuple[int, int, int, str, tuple[object, ...]]

_LINGER = "hh" if sys.platform == "win32" else "ii"
_DROP_UNSENT = struct.pack(_LINGER, 1, 0)
_DELIVER_UNSENT = struct.pack(_LINGER, 0, 0)


def socket_factory(*, user_timeout: float) -> Callable[[_Address], socket.socket]:
    """Make a factory of sockets that drop unsent bytes when they close.

    Args:
        user_timeout: Seconds for which the kernel retransmits unacknowledged bytes.
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
    """Close a connection at once and drop all buffered bytes."""
    # An orderly close that had begun may have reset SO_LINGER.
    _linger(transport, _DROP_UNSENT)
    transport.abort()


def _linger(transport: asyncio.BaseTransport, option: bytes) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and not transport.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)


_MAX_READ = 64 * 1024
"""Bytes that asyncio allocates for a read. Its own 256 KiB come from the kernel each time: malloc maps such a block."""


class UnwrittenError(OSError):
    """The kernel refused a write and took no byte of it."""


class Handler(ResponseHandler):
    """aiohttp's protocol, with an orderly close and a view of the bytes that have not reached the kernel."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.is_settled = True
        """Whether nothing is outstanding, so that a close is orderly."""
        self._lowest: asyncio.WriteTransport | None = None
        self._descriptor = -1
        """The socket's file descriptor for direct writes; -1 with TLS and on Windows."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, and disable the event loop's write buffer."""
        super().connection_made(transport)
        self._lowest = _lowest(transport)
        self._lowest.set_write_buffer_limits(high=0)
        if hasattr(transport, "max_size"):
            transport.max_size = _MAX_READ  # pyright: ignore[reportAttributeAccessIssue] - asyncio's own
        if self._lowest is transport and os.name == "posix":
            sock = transport.get_extra_info("socket")
            self._descriptor = -1 if sock is None else sock.fileno()

    def settle(self) -> None:
        """Let the kernel deliver what it holds when the connection closes, if nothing is outstanding."""
        if self.transport is not None and self.is_settled:
            _linger(self.transport, _DELIVER_UNSENT)

    def send(self, data: bytes | memoryview, claim: ClaimAge | None) -> bool:
        """Write bytes if the claim is valid. Bytes that the kernel does not take at once stay in the `backlog`.

        A suspension after the check goes undetected. At full speed, 1 in 80 fell between the check and the end of
        ``transport.write``. So the system call directly follows the last check.

        Returns:
            Whether nothing stays in the backlog.

        Raises:
            ClaimExpiredError: The claim has expired. Nothing was written.
            UnwrittenError: The kernel refused the bytes. Nothing was written.
        """
        transport, descriptor, taken = self.transport, self._descriptor, 0
        assert transport is not None  # noqa: S101 - the caller has checked it
        if claim is not None and claim.is_expired():
            raise ClaimExpiredError
        # The descriptor of a closed socket may belong to another file.
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
            except OSError as error:
                raise UnwrittenError from error
            if taken == len(data):
                return True
        transport.write(data[taken:])
        return not self.backlog()

    def takes_more(self) -> bool:
        """Whether the kernel has taken all written bytes, and has room for a small write."""
        return not self.backlog() and self._is_writable()

    def backlog(self) -> int:
        """Number of written bytes that the kernel has not taken yet."""
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
    """The transport that writes to the socket. A TLS transport wraps it without a public attribute."""
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
    # uvloop's attributes are in C, but its TLS protocol refers to the transports below and above.
    [protocol] = (referent for referent in gc.get_referents(transport) if type(referent).__name__ == "SSLProtocol")
    return next(
        (
            referent
            for referent in gc.get_referents(protocol)
            if referent is not transport and hasattr(referent, "set_write_buffer_limits")
        ),
        None,
    )
