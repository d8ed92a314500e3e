"""Faults to order: what goes wrong with the next requests, in which order, and whether the provider acts first."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import define, field, frozen

from dispatchkit.sandbox.wire import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

Ending: TypeAlias = Literal["answer", "close", "reset", "cut", "silence"]
"""How a spoiled request ends.

``answer`` sends the reply. ``cut`` sends half of it and then closes. ``close`` and ``reset`` end the connection without
a reply, by FIN and by RST. ``silence`` keeps it open and sends nothing.
"""

# What is cut in half where no provider was asked for an answer.
_STUMP = Reply(200, b"{}", {"Content-Type": "application/json"})


@frozen
class Fault:
    """One way for a request to go wrong; order it with :meth:`Sandbox.order`.

    Make one with the class methods, each of which says what the client sees. ``acts`` always means: the provider does
    what it was asked for, and only the answer is lost or spoiled.

    Attributes:
        name: What it is called.
        acts: Whether the provider acts before it happens.
        ending: How the request ends. Default: with an answer.
        delay: Seconds between the act and the ending. Default: 0.
        reply: What is answered instead of the provider's own reply. Default: None, the provider's own.

    Example:
        >>> async with Sandbox() as sandbox, DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...     sandbox.order(Fault.lost_answer())
        ...     (await direct.start(7)).settled  # its status shows that it was started
        True
    """

    name: str
    acts: bool
    ending: Ending = "answer"
    delay: float = 0.0
    reply: Reply | None = None

    def __str__(self) -> str:
        return f"{self.name}, acted" if self.acts else f"{self.name}, not acted"

    @classmethod
    def all(cls) -> tuple[Fault, ...]:
        """Every fault that the sandbox can play, with its default values.

        A fault that can come before or after the provider acts is there twice. The text of each is different, so that a
        test can be made of each: ``@pytest.mark.parametrize("fault", Fault.all(), ids=str)``. The order is fixed:

        - ``lost_answer``, ``dropped``, ``slow`` by 0.05 s, ``throttled`` by 1 s;
        - after the act: ``reset``, ``http`` (an empty 502), ``garbage``, ``html`` (502), ``cut`` and ``silent``;
        - the same six before it.

        >>> [str(fault) for fault in Fault.all()][:5]
        ['lost_answer, acted', 'dropped, not acted', 'slow, acted', 'throttled, not acted', 'reset, acted']
        """
        faults = [cls.lost_answer(), cls.dropped(), cls.slow(0.05), cls.throttled()]
        for acts in (True, False):
            faults += [cls.reset(acts=acts), cls.http(502, acts=acts), cls.garbage(acts=acts)]
            faults += [cls.html(acts=acts), cls.cut(acts=acts), cls.silent(acts=acts)]
        return tuple(faults)

    @classmethod
    def lost_answer(cls) -> Fault:
        """The provider acts, and the connection closes without an answer."""
        return cls("lost_answer", acts=True, ending="close")

    @classmethod
    def dropped(cls) -> Fault:
        """The connection closes before the provider acts: to the client just like :meth:`lost_answer`."""
        return cls("dropped", acts=False, ending="close")

    @classmethod
    def reset(cls, *, acts: bool = True) -> Fault:
        """The connection is reset (RST) without an answer. Default: after the provider acted."""
        return cls("reset", acts=acts, ending="reset")

    @classmethod
    def slow(cls, seconds: float) -> Fault:
        """The provider acts at once, and its answer comes ``seconds`` later.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"seconds must not be negative: {seconds}")
        return cls("slow", acts=True, delay=seconds)

    @classmethod
    def http(
        cls, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, *, acts: bool = False
    ) -> Fault:
        """An HTTP answer of your own. Default: an empty one, and the provider does not act."""
        return cls("http", acts=acts, reply=Reply(status, body, dict(headers or {})))

    @classmethod
    def throttled(cls, retry_after: float | str = 1) -> Fault:
        """429 with ``Retry-After``, in seconds or as an HTTP date; the provider does not act. Default: 1 second."""
        return cls("throttled", acts=False, reply=Reply(429, b"", {"Retry-After": str(retry_after)}))

    @classmethod
    def garbage(cls, *, acts: bool = True) -> Fault:
        """200 with bytes that are neither JSON nor XML nor text. Default: after the provider acted."""
        return cls("garbage", acts=acts, reply=Reply(200, b"\xff\xfe{\x00<garbage", _STUMP.headers))

    @classmethod
    def html(cls, status: int = 502, *, acts: bool = True) -> Fault:
        """The page of a proxy in between. Default: 502, after the provider acted."""
        return cls("html", acts=acts, reply=Reply.of_web_server(status))

    @classmethod
    def cut(cls, *, acts: bool = True) -> Fault:
        """Half of the body, or of the head where the body is empty, and then the connection closes.

        Default: after the provider acted.
        """
        return cls("cut", acts=acts, ending="cut", reply=None if acts else _STUMP)

    @classmethod
    def silent(cls, *, acts: bool = True) -> Fault:
        """No answer until the client leaves or the sandbox closes. Default: after the provider acted."""
        return cls("silent", acts=acts, ending="silence")


@define
class _Order:
    fault: Fault
    times: int
    path_contains: str | None

    def matches(self, path: str) -> bool:
        return self.path_contains is None or self.path_contains in path


@define
class Faults:
    """The queue of ordered faults. Each request takes at most one: the first in the queue that matches its path."""

    _orders: deque[_Order] = field(factory=deque[_Order], init=False)
    _lock: Lock = field(factory=Lock, init=False)
    """A test may order faults in another thread than the sandbox's."""

    def __len__(self) -> int:
        with self._lock:
            return sum(order.times for order in self._orders)

    def order(self, fault: Fault, *, times: int = 1, path_contains: str | None = None) -> None:
        """Put a fault at the end of the queue.

        Raises:
            ValueError: ``times`` is less than 1.
        """
        if times < 1:
            raise ValueError(f"times must be 1 or more: {times}")
        with self._lock:
            self._orders.append(_Order(fault, times, path_contains))

    def take(self, path: str) -> Fault | None:
        """Take the fault that a request for ``path`` meets, if any."""
        with self._lock:
            order = next((order for order in self._orders if order.matches(path)), None)
            if order is None:
                return None
            order.times -= 1
            if not order.times:
                # By identity: two equal orders are two places in the queue.
                self._orders = deque(other for other in self._orders if other is not order)
            return order.fault
