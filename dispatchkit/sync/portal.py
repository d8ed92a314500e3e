"""The loop thread, which runs the coroutines of blocking callers.

A process has one loop thread. The first call starts it, and all clients that have made a call share it. The last
client to close ends it. A call and its result cross between the threads by a `wakeup`. A portal call guarantees:

- If an exception ends the wait (Ctrl-C, another signal handler), the call is cancelled first. The exception is raised
  once the cancellation has taken effect. A note on it says what is known of the call.
- No wait is endless. A portal call ends with its call, with its client, with the loop, or with a fork.
- A forked child starts without a loop thread and uses nothing that it inherited.
- At the interpreter's exit, calls in flight are cancelled and clients closed, silently and within `CANCEL_TIMEOUT`.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
import warnings
from asyncio import _get_running_loop  # pyright: ignore[reportPrivateUsage] - documented, and raises nothing
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, Protocol, TypeVar

from dispatchkit.core.log import log, logger
from dispatchkit.core.transport.fork import KEEP_ALIVE
from dispatchkit.core.transport.patched import refuse_patched
from dispatchkit.sync import wakeup
from dispatchkit.sync.portal_call import CANCEL_TIMEOUT, PortalCall, forked_error
from dispatchkit.sync.wakeup import LoopWakeup

__all__ = ["CANCEL_TIMEOUT", "PortalHandle"]

R = TypeVar("R")

new_event_loop: Callable[[], asyncio.AbstractEventLoop]
try:  # now: once the main thread has ended, uvloop cannot be imported any more, but others may still make calls
    import uvloop
except ImportError:  # an extra
    new_event_loop = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop


class Closes(Protocol):
    """The method of an asynchronous client that the portal needs."""

    async def close(self) -> None:
        """Close the connections."""
        ...


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        refuse_patched()  # a client may be older than the patch
        # The default factory would also make it the loop of the calling thread. No debug mode under ``-X dev``: it
        # would print how long our own steps take.
        self._runner = asyncio.Runner(debug=False, loop_factory=new_event_loop)
        self.loop = self._runner.get_loop()
        self.loop.set_exception_handler(_log)
        self.handles: set[PortalHandle] = set()
        self.calls: set[PortalCall[Any]] = set()
        self._submitted: deque[PortalCall[Any]] = deque()
        """The calls that the loop has not started yet."""
        self._wakeup = LoopWakeup(self.loop, self._start_submitted)
        self._end_error: Callable[[], BaseException] | None = None
        """The error of calls that come too late; None while the thread takes calls."""
        # A forked child lacks this thread, and its stack is never unwound there. So its objects (this one, the loop,
        # `KEEP_ALIVE`) are never finalised in the child.
        self._keep_alive = KEEP_ALIVE
        self._released = self.loop.create_future()
        self._ident: int | None = None
        self._served = threading.Lock()
        """Its owner closes the runner. An interrupt may end the start of a thread, which begins all the same."""
        self._thread = threading.Thread(target=self._serve, name="dispatchkit", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            if self._served.acquire(blocking=False):
                self._runner.close()
            else:
                self.release()
            raise
        self._ident = self._thread.ident

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def is_here(self) -> bool:
        return threading.get_ident() == self._ident

    def _serve(self) -> None:
        if not self._served.acquire(blocking=False):
            return
        try:
            with self._runner:
                serving = self.loop.create_task(self._until_released())
                while not serving.done():
                    # It came from one caller's task and is raised to that caller; other calls go on.
                    with contextlib.suppress(KeyboardInterrupt, SystemExit):
                        self.loop.run_until_complete(serving)
        finally:
            self._end_error = asyncio.CancelledError
            for call in list(self.calls):  # calls that arrived after the loop's end
                call.fail(asyncio.CancelledError())

    def _start_submitted(self) -> None:
        while self._submitted:
            self._submitted.popleft().start()

    async def _until_released(self) -> None:
        await self._released

    def call(self, call: PortalCall[R], on_interrupt: Callable[[BaseException], None] | None = None) -> R:
        """Run a call and wait. An exception that ends the wait cancels it, or calls ``on_interrupt`` instead."""
        try:
            self.calls.add(call)  # first: an end of the loop or a fork must find it
            if self._end_error is None:
                self._submitted.append(call)
                self._wakeup.send()
            else:
                call.fail(self._end_error())
            call.wait()
            self.calls.discard(call)
            error = call.failure()
        except BaseException as interrupt:
            try:
                if on_interrupt is None:
                    call.abandon(self.loop, interrupt)
                else:
                    on_interrupt(interrupt)
            finally:
                self.calls.discard(call)
            raise
        # No function call from here on: a signal handler could run after it, and the outcome would be lost.
        if error is None:
            return call.result
        call.error = None
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    async def shutdown(self, handles: Iterable[PortalHandle]) -> None:
        """Cancel the calls of these clients, and close them."""
        handles = set(handles)
        theirs = [call for call in list(self.calls) if call.handle in handles]
        for call in theirs:
            call.cancel()
        tasks = [call.task for call in theirs if call.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT / 2)
        for handle in handles:
            with contextlib.suppress(Exception):  # there is no caller to raise it to
                await asyncio.wait_for(handle.async_client.close(), CANCEL_TIMEOUT / 2)

    def release(self) -> None:
        """Let the thread end."""
        with contextlib.suppress(RuntimeError):  # its loop is closed already
            self.loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        if not self._released.done():
            self._released.set_result(None)

    def join(self, timeout: float = CANCEL_TIMEOUT) -> None:
        if not self.is_here():
            self._thread.join(timeout)

    def reset_after_fork(self) -> None:
        """Reset in a forked child, where this thread does not run."""
        self._end_error = forked_error
        for handle in self.handles:
            handle.reset_after_fork()
        for call in self.calls:
            call.detach_after_fork()


def _log(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log event-loop errors at DEBUG instead of printing them."""
    del loop
    log(logger, logging.DEBUG, "loop thread: %s", context.get("message"), exc_info=context.get("exception"))


class _Portal:
    """The loop thread of this process, if there is one."""

    def __init__(self) -> None:
        # Reentrant: a signal handler or a finaliser may make a call while this thread holds it.
        self.lock = threading.RLock()
        self.exiting = False
        self._thread: _LoopThread | None = None
        self._warned = False
        self._used = False
        self._forked = False

    def register(self, handle: PortalHandle) -> _LoopThread:
        with self.lock:
            thread = self._living_thread()
            if thread is None:
                started = _LoopThread()
                self._used = True
                thread = self._living_thread()
                if thread is None:
                    self._thread = thread = started
                else:  # a signal handler made a call while the thread started
                    started.release()
            thread.handles.add(handle)
            return thread

    def _living_thread(self) -> _LoopThread | None:
        return self._thread if self._thread is not None and self._thread.is_alive() else None

    def unregister(self, handle: PortalHandle, thread: _LoopThread) -> None:
        with self.lock:
            thread.handles.discard(handle)
            if thread.handles:
                return
            if self._thread is thread:
                self._thread = None
        thread.release()
        thread.join()

    def warn_of_blocking(self, method: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"sync.{method} blocks the event loop that runs in this thread: await dispatchkit.{method} there",
                RuntimeWarning,
                stacklevel=5,
            )

    def exit(self) -> None:
        self.exiting = True
        if self._forked and self._used:
            _reset_libuv_pool()
        thread = self._thread
        if thread is None or thread.is_here():
            return
        latest = time.monotonic() + CANCEL_TIMEOUT
        call = PortalCall(partial(thread.shutdown, thread.handles))
        thread.calls.add(call)
        with contextlib.suppress(RuntimeError):  # its loop is closed already
            thread.loop.call_soon_threadsafe(call.start)
            call.wait_at_most(CANCEL_TIMEOUT)
        thread.release()
        thread.join(max(0.0, latest - time.monotonic()))

    def reset_after_fork(self) -> None:
        """Reset in a forked child."""
        self.lock = threading.RLock()
        self._forked = True
        wakeup.reset_after_fork()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        KEEP_ALIVE.append(thread)
        thread.reset_after_fork()


def _reset_libuv_pool() -> None:
    """Let a forked child exit.

    libuv joins the threads of its pool while the process exits. A child inherits their number but not the threads, and
    would crash there. Using the pool (to resolve a name) makes new threads.
    """
    if new_event_loop is not asyncio.new_event_loop:
        with contextlib.suppress(Exception), asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_resolve())


async def _resolve() -> None:
    await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 1)


_portal = _Portal()
atexit.register(_portal.exit)
if hasattr(os, "register_at_fork"):  # there is none on Windows
    os.register_at_fork(after_in_child=_portal.reset_after_fork)


class PortalHandle:
    """A blocking client's use of the loop thread: registered on its first call, unregistered on close."""

    __slots__ = ("_closed", "_name", "_thread", "async_client")

    def __init__(self, async_client: Closes) -> None:
        self.async_client = async_client
        self._name = type(async_client).__name__
        self._thread: _LoopThread | None = None
        self._closed = False

    def run(
        self,
        work: Callable[[], Coroutine[object, object, R]],
        method: str,
        *,
        owner: str | None = None,
        on_interrupt: Callable[[BaseException], None] | None = None,
    ) -> R:
        """Run a coroutine on the loop thread and wait for its result.

        Args:
            work: Makes the coroutine, on the loop thread. An interrupt before that leaves no coroutine behind.
                It runs in the context of this call.
            method: The name of the method that was called, for messages.
            owner: The class of that method; None is the client's.
            on_interrupt: Called instead of cancelling when an exception ends the wait, Ctrl-C for instance.

        Raises:
            RuntimeError: The client is closed, or this is the loop thread itself.
            BaseException: The error of the coroutine, or the exception that ended the wait.
        """
        thread = self._thread
        if thread is None or self._closed or _portal.exiting:
            thread = self.register()
        if thread.is_here() or _get_running_loop() is not None:
            self._guard(thread, owner or self._name, method)
        return thread.call(PortalCall(work, self), on_interrupt)

    def register(self) -> _LoopThread:
        """Use the loop thread from now on, and keep it alive until the close.

        Raises:
            RuntimeError: The client is closed.
        """
        with _portal.lock:  # against a close by another thread
            if self.is_closed():
                raise self.closed_error()
            thread = self._thread
            if thread is None:
                thread = _portal.register(self)
                if not self._closed:  # by a signal handler, meanwhile
                    self._thread = thread
        if self._closed:
            _portal.unregister(self, thread)
            raise self.closed_error()
        return thread

    def read(self, value: Callable[[], R], method: str, *, owner: str | None = None) -> R:
        """Read a value on the loop thread, which alone changes it; here if no loop thread can change it now."""
        if self._thread is None or self.is_closed() or self._thread.is_here():
            return value()

        async def read() -> R:
            return value()

        return self.run(read, method, owner=owner)

    def _guard(self, thread: _LoopThread, owner: str, method: str) -> None:
        if thread.is_here():
            raise RuntimeError(
                f"sync.{owner}.{method} was called on the thread that it would wait for: "
                f"await dispatchkit.{owner}.{method} there"
            )
        if _get_running_loop() is not None:
            _portal.warn_of_blocking(f"{owner}.{method}")

    def is_closed(self) -> bool:
        """Whether no call can be made any more."""
        return self._closed or _portal.exiting

    def closed_error(self) -> BaseException:
        """The error of a call that can no longer be made."""
        if self._closed:
            return RuntimeError(f"this sync.{self._name} is closed: make a new one")
        text = "the interpreter is exiting: nothing is sent any more"
        # SystemExit ends a thread silently; an error would be printed during the exit.
        is_main = threading.current_thread() is threading.main_thread()
        return RuntimeError(text) if is_main else SystemExit(text)

    def on_loop_thread(self) -> bool:
        """Whether this is the loop thread itself."""
        return self._thread is not None and self._thread.is_here()

    def close(self) -> None:
        """Cancel the calls in flight, close the client and unregister it. Closing twice does nothing."""
        thread = self._thread
        if thread is not None and not self._closed:
            self._guard(thread, self._name, "close")
        with _portal.lock:
            if self._closed:
                return
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is None or _portal.exiting:
            return
        try:
            thread.call(PortalCall(partial(thread.shutdown, [self])))
        finally:
            _portal.unregister(self, thread)

    def drop(self) -> None:
        """Close a client that is garbage, without waiting. A finaliser may call it on any thread."""
        thread, self._thread = self._thread, None
        if thread is None or self._closed or _portal.exiting:
            return
        self._closed = True

        def begin() -> None:
            ending = thread.loop.create_task(thread.shutdown([self]))
            ending.add_done_callback(lambda _: _portal.unregister(self, thread))

        with contextlib.suppress(RuntimeError):  # the loop is closed already
            thread.loop.call_soon_threadsafe(begin)

    def reset_after_fork(self) -> None:
        """Reset in a forked child."""
        self._thread = None
