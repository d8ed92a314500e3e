"""A transport that answers in fake time, without a socket."""

from __future__ import annotations

from collections.abc import Callable

from dispatchkit.core.command import Request, Response
from dispatchkit.core.transport.transport import TransportFailure
from dispatchkit.testing import FakeClock


class FakeTransport:
    """Stands in for the transport: each start takes so long as ``takes`` says, and is answered what ``says`` says."""

    def __init__(
        self,
        clock: FakeClock,
        *,
        takes: Callable[[FakeTransport], float] = lambda _: 0.1,
        says: Callable[[FakeTransport, int], Response | TransportFailure | None] = lambda _, __: None,
    ) -> None:
        self.clock = clock
        self.takes = takes
        self.says = says
        self.seen: list[tuple[float, int]] = []
        """When each request came, and for which id."""
        self.in_flight = 0
        self.most = 0

    async def send(self, request: Request, tracker: object, **_: object) -> Response | TransportFailure:
        number = int(request.target.split("/")[-2])
        tracker.sent = True  # type: ignore[attr-defined]
        self.seen.append((self.clock.time, number))
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await self.clock.sleep(self.takes(self))
            return self.says(self, number) or Response(200, {}, b'{"dispatchId": %d}' % number)
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        pass


def throttled(retry_after: float | None = None) -> Response:
    return Response(429, {} if retry_after is None else {"Retry-After": str(retry_after)}, b"")
