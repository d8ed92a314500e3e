"""Refuse the wrong kind of ``with``: Python's own message does not name the right one.

Type checkers do not see the refusing methods, so they report the mistake as they do for any class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

__all__ = ["AsyncOnly", "BlockingOnly"]


class AsyncOnly:
    """A class for ``async with``, which refuses ``with``."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            name = type(self).__name__
            raise TypeError(
                f"{name} is asynchronous: use `async with` in an `async def`. For blocking code, dispatchkit.sync has "
                f"its counterpart, which takes `with`"
            )

        def __exit__(self, *_: object) -> None: ...


class BlockingOnly:
    """A class for ``with``, which refuses ``async with``."""

    __slots__ = ()

    if not TYPE_CHECKING:

        async def __aenter__(self) -> NoReturn:
            name = type(self).__name__
            raise TypeError(
                f"sync.{name} blocks the event loop: use `with` in blocking code. For an `async def`, dispatchkit has "
                "its asynchronous counterpart, which takes `async with`"
            )

        async def __aexit__(self, *_: object) -> None: ...
