"""Ask a callable for its token, on the event loop. Concurrent callers share one call of it."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable

from dispatchkit.core.secret import Secret, is_asynchronous
from dispatchkit.errors import NotSentError

__all__ = ["Renewal"]

_asking: contextvars.ContextVar[tuple[int, ...]] = contextvars.ContextVar("dispatchkit_asking", default=())
"""The renewals whose callable runs in this context."""


class Renewal:
    """The renewals of one secret."""

    __slots__ = ("_secret", "_task")

    def __init__(self, secret: Secret) -> None:
        self._secret = secret
        self._task: asyncio.Task[BaseException | None] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether the callable is being asked."""
        return self._task is not None and not self._task.done()

    async def perform(self, timeout: float) -> None:
        """Ask the callable, or wait for its answer where it is being asked.

        Args:
            timeout: Seconds to wait for the callable.

        Raises:
            NotSentError: The callable gave no token in time.
            BaseException: The callable raised it.
        """
        if id(self) in _asking.get():
            raise RuntimeError("the token callable makes a call that needs its own token: use another client there")
        loop = asyncio.get_running_loop()
        task = self._task
        if task is None or task.done() or task.get_loop() is not loop:
            context = contextvars.copy_context()
            context.run(_asking.set, (*_asking.get(), id(self)))
            task = self._task = loop.create_task(self._ask(), context=context)
        done, _ = await asyncio.wait((task,), timeout=timeout)
        if not done:
            raise NotSentError(f"the token callable gave no token within {timeout:g} s")
        if (error := task.result()) is not None:
            raise error.with_traceback(None)  # the frames below hold the token

    async def _ask(self) -> BaseException | None:
        """Call the callable. Its error is returned: a task that raises Ctrl-C would end the loop."""
        secret = self._secret
        try:
            token = secret.source() if is_asynchronous(secret.source) else await _in_thread(secret.source)
            if inspect.isawaitable(token):
                token = await token
            secret.accept(token)
        except BaseException as error:  # noqa: BLE001 - it is raised to those who wait
            if isinstance(error, Exception):
                secret.fail(error)
            return error
        return None


async def _in_thread(source: Callable[[], object]) -> object:
    """Call a plain callable in a thread, where it may block."""

    def call() -> tuple[object, BaseException | None]:
        try:
            return source(), None
        except BaseException as error:  # noqa: BLE001 - a future takes no StopIteration, and a thread no Ctrl-C
            return None, error

    result, error = await asyncio.to_thread(call)
    if error is not None:
        raise error
    return result
