"""The loop thread: where the coroutines of blocking callers run.

There is one in a process. It is made on the first call and shared by all clients that have made a call; the last one
to close ends it. A call crosses over with ``call_soon_threadsafe`` and its caller waits on a bare lock, the cheapest
thing that Ctrl-C can interrupt. What a portal call promises:

- Whatever ends the wait (Ctrl-C, an exception out of a signal handler) cancels the call, waits until that has taken
  effect, and only then goes on its way, with what is known of the call as a note.
- Nobody waits forever: a portal call ends with its call, with its client, with the loop, or with a fork.
- A forked child begins anew and touches nothing that it inherited.
- The interpreter's exit cancels what is in flight and closes what is open, silently and within bounds.
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
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from dispatchkit.core.log import log, logger
from dispatchkit.core.transport.fork import KEEP_ALIVE
from dispatchkit.sync.portal_call import CANCEL_TIMEOUT, PortalCall

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
    """What all asynchronous clients have in common."""

    async def close(self) -> None:
        """Close the connections."""
        ...


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        # The default factory would make the loop that of the calling thread as well. Not to be debugged by ``-X dev``:
        # that would print how long our own steps take.
        self._runner = asyncio.Runner(debug=False, loop_factory=new_event_loop)
        self.loop = self._runner.get_loop()
        self.loop.set_exception_handler(_log)
        self.handles: set[PortalHandle] = set()
        self.calls: set[PortalCall[Any]] = set()
        # In a forked child this thread is gone, but nobody unwinds its stack: what it holds (this object, the loop,
        # `KEEP_ALIVE`) is never finalised there.
        self._keep_alive = KEEP_ALIVE
        self._released = self.loop.create_future()
        self._ident: int | None = None
        self._thread = threading.Thread(target=self._serve, name="dispatchkit", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            if self._thread.ident is None:
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
        try:
            with self._runner:
                serving = self.loop.create_task(self._until_released())
                while not serving.done():
                    # One caller's task raised it, and that caller gets it: the others' calls go on.
                    with contextlib.suppress(KeyboardInterrupt, SystemExit):
                        self.loop.run_until_complete(serving)
        finally:
            for call in list(self.calls):  # what came too late for the loop
                call.fail(asyncio.CancelledError())

    async def _until_released(self) -> None:
        await self._released

    def call(self, call: PortalCall[R], on_interrupt: Callable[[], None] | None = None) -> R:
        """Run it and wait. What ends the wait cancels it, or calls ``on_interrupt`` instead."""
        try:
            self.calls.add(call)  # first: whoever ends the loop must find it
            try:
                self.loop.call_soon_threadsafe(call.start)
            except RuntimeError:
                if not self.loop.is_closed():
                    raise
                call.fail(asyncio.CancelledError())
            call.wait()
            self.calls.discard(call)
            error = call.failure()
        except BaseException as interrupt:
            try:
                if on_interrupt is None:
                    call.abandon(self.loop, interrupt)
                else:
                    on_interrupt()
            finally:
                self.calls.discard(call)
            raise
        # No call from here on, of Python or of C: a signal handler could run after it, and the outcome would be lost.
        if error is None:
            return call.result
        call.error = None
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    async def shutdown(self, handles: Iterable[PortalHandle]) -> None:
        """Cancel what is in flight for these clients, and close them."""
        handles = set(handles)
        theirs = [call for call in list(self.calls) if call.handle in handles]
        for call in theirs:
            call.cancel()
        tasks = [call.task for call in theirs if call.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT / 2)
        for handle in handles:
            with contextlib.suppress(Exception):  # nothing can be done about it
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


def _log(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the loop complains of has nobody to complain to: by default it would be printed."""
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
            if self._thread is None or not self._thread.is_alive():
                self._thread = _LoopThread()
                self._used = True
            self._thread.handles.add(handle)
            return self._thread

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
        call = PortalCall(thread.shutdown(thread.handles))
        thread.calls.add(call)
        with contextlib.suppress(RuntimeError):  # its loop is closed already
            thread.loop.call_soon_threadsafe(call.start)
            call.wait_at_most(CANCEL_TIMEOUT)
        thread.release()
        thread.join(max(0.0, latest - time.monotonic()))

    def reset_after_fork(self) -> None:
        """In a forked child: begin anew."""
        self.lock = threading.RLock()
        self._forked = True
        thread, self._thread = self._thread, None
        if thread is None:
            return
        KEEP_ALIVE.append(thread)
        for handle in thread.handles:
            handle.reset_after_fork()
        for call in thread.calls:
            call.detach_after_fork()


def _reset_libuv_pool() -> None:
    """Let a forked child exit.

    libuv joins the threads of its pool while the process exits. A child inherits their number but not the threads, and
    would crash there. Using the pool (to resolve a name) makes it anew.
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
    """A blocking client's share of the loop thread: taken on its first call, given back when it is closed."""

    __slots__ = ("_closed", "_name", "_thread", "async_client")

    def __init__(self, async_client: Closes) -> None:
        self.async_client = async_client
        self._name = type(async_client).__name__
        self._thread: _LoopThread | None = None
        self._closed = False

    def run(
        self,
        coroutine: Coroutine[object, object, R],
        method: str,
        *,
        owner: str | None = None,
        on_interrupt: Callable[[], None] | None = None,
    ) -> R:
        """Run a coroutine on the loop thread and wait for its result.

        Args:
            coroutine: What to run. The context of this call goes with it.
            method: What the caller called, for messages.
            owner: The class that the method belongs to; None is the client's.
            on_interrupt: Called instead of cancelling when the wait is ended, by Ctrl-C for instance.

        Raises:
            RuntimeError: The client is closed, or this is the loop thread itself.
            BaseException: What the coroutine raised, or what ended the wait.
        """
        try:
            if self.is_closed():
                raise self.closed_error()
            thread = self._thread
            if thread is None:
                thread = self._thread = _portal.register(self)
            self._guard(thread, owner or self._name, method)
        except BaseException:
            coroutine.close()
            raise
        return thread.call(PortalCall(coroutine, self), on_interrupt)

    def _guard(self, thread: _LoopThread, owner: str, method: str) -> None:
        if thread.is_here():
            raise RuntimeError(
                f"sync.{owner}.{method} was called on the thread that it would wait for: "
                f"await dispatchkit.{owner}.{method} there"
            )
        if _get_running_loop() is not None:
            _portal.warn_of_blocking(f"{owner}.{method}")

    def is_closed(self) -> bool:
        """Whether nothing can be run any more."""
        return self._closed or _portal.exiting

    def closed_error(self) -> BaseException:
        """Why not."""
        if self._closed:
            return RuntimeError(f"this sync.{self._name} is closed: make a new one")
        text = "the interpreter is exiting: nothing is sent any more"
        # SystemExit ends a thread without a word; an error would be printed in the middle of the exit.
        is_main = threading.current_thread() is threading.main_thread()
        return RuntimeError(text) if is_main else SystemExit(text)

    def on_loop_thread(self) -> bool:
        """Whether this is the loop thread itself."""
        return self._thread is not None and self._thread.is_here()

    def close(self) -> None:
        """Cancel what is in flight, close the client and give back the loop thread. Again: does nothing."""
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
            thread.call(PortalCall(thread.shutdown([self])))
        finally:
            _portal.unregister(self, thread)

    def drop(self) -> None:
        """Close without waiting: nobody has the client any more. May be called by a finaliser, on any thread."""
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
        """In a forked child: begin anew."""
        self._thread = None
