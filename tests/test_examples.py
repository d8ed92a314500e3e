"""The examples of the docstrings run as they stand, as in ``python -m asyncio``: ``await`` needs no function around it.

What an example may use: all public names of dispatchkit, `Sandbox`, `Fault`, and its own folder to write to.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import io
import pkgutil
import socket
import traceback
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import dispatchkit
from dispatchkit.sandbox import Fault, Sandbox

PUBLIC = [getattr(dispatchkit, name) for name in dispatchkit.__all__ if isinstance(getattr(dispatchkit, name), type)]

FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def documented() -> Iterator[Any]:
    """All documented classes, methods and functions that have an example."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    for info in pkgutil.walk_packages(dispatchkit.__path__, "dispatchkit."):
        if "__main__" not in info.name:
            module = importlib.import_module(info.name)
            yield from (pytest.param(test, id=test.name) for test in finder.find(module) if test.examples)


def show(code: Any, names: dict[str, Any], runner: asyncio.Runner) -> str:
    """Execute one example, and return what it prints or raises."""
    printed = io.StringIO()

    async def drive(coroutine: Any) -> None:
        await coroutine

    with redirect_stdout(printed):
        try:
            result = eval(code, names)
            if inspect.iscoroutine(result):
                runner.run(drive(result))
        except Exception as error:  # noqa: BLE001 - an example may show an error
            head = "Traceback (most recent call last):\n"
            return head + traceback.format_exception_only(error)[-1]
    return printed.getvalue()


@pytest.fixture
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def connect_to_loopback(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6} and address[0] not in {"127.0.0.1", "::1"}:
            pytest.fail(f"an example connects to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_to_loopback)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: pytest.fail(f"an example looks up {host}"))


@pytest.mark.usefixtures("_only_loopback")
@pytest.mark.parametrize("test", list(documented()))
def test_examples_show_their_output(test: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {name: getattr(dispatchkit, name) for name in dispatchkit.__all__}
    names |= {"Fault": Fault, "Sandbox": Sandbox} | test.globs
    with asyncio.Runner() as runner:
        for example in test.examples:
            code = compile(example.source, test.name, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            output = show(code, names, runner)
            wanted = (
                example.want if example.exc_msg is None else f"Traceback (most recent call last):\n{example.exc_msg}"
            )
            options = FLAGS | sum(flag for flag, is_set in example.options.items() if is_set)
            assert doctest.OutputChecker().check_output(wanted, output, options), f"{example.source}{output}"


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__name__)
def test_public_classes_have_examples(public: type) -> None:
    assert ">>> " in (public.__doc__ or "")
