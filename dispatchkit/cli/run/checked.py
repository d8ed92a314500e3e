"""The check of a launch's targets, if the launch or its question needs it."""

# The package uses what is private to the callers of a client or a ledger.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from dispatchkit.cli.run.check import SHOWN, check_before_question, check_or_refuse, check_unplanned
from dispatchkit.cli.text import counted, write
from dispatchkit.cli.translate import _

if TYPE_CHECKING:
    from dispatchkit.cli.input.ids import Targets
    from dispatchkit.cli.options import RunOptions
    from dispatchkit.cli.run.known_run import KnownRun
    from dispatchkit.cli.run.spec import LaunchSpec
    from dispatchkit.core.call.client import Client


__all__ = ["MASK", "checked_targets", "checking_client"]

R = TypeVar("R")
W = TypeVar("W")

MASK = "***"
"""Stands for a token where none is needed."""


def checking_client(
    options: RunOptions, spec: LaunchSpec[W, R], host: str, key: str
) -> Callable[[Targets], AbstractAsyncContextManager[Client[W]]] | None:
    """Makes the client of a check, which ends with its loop; None if there is no token.

    Raises:
        ValueError: A check is asked for, and there is no token.
    """
    if spec.check is None:
        return None
    if options.sandbox:
        return lambda targets: _client_of_sandbox(spec, targets)
    if key == MASK:
        if spec.check.is_demanded:
            raise ValueError(
                _("--check reads the provider: set {variable}, or add --token-file PATH").format(
                    variable=spec.token_variable
                )
            )
        return None
    client = spec.connect(host, key)
    return lambda _targets: client


@asynccontextmanager
async def _client_of_sandbox(spec: LaunchSpec[W, R], targets: Targets) -> AsyncGenerator[Client[W]]:
    async with spec.sandbox(targets) as sandbox, spec.connect(sandbox.url, spec.token_of_sandbox(sandbox)) as client:
        yield client


def checked_targets(
    spec: LaunchSpec[W, R],
    connect: Callable[[Targets], AbstractAsyncContextManager[Client[W]]] | None,
    targets: Targets,
    options: RunOptions,
    *,
    known: KnownRun,
    is_asked_for: bool,
) -> tuple[Targets, str]:
    """Check the targets, if the launch or its question needs it. Returns those to launch, and lines for the question.

    A run that exists was checked when it was new. Those of its targets that are done would refuse it now.
    """
    if spec.check is None or connect is None:
        return targets, ""
    if known.left is not None:
        if known.unplanned is not None:
            targets = check_unplanned(
                spec.check,
                connect,
                targets,
                unplanned=known.unplanned,
                noun=spec.noun,
                difference=known.difference,
            )
        if spec.check.is_demanded and known.left:
            write(sys.stderr, _("The run exists already: its targets are not checked again.") + "\n")
        return targets, ""
    if spec.check.is_demanded:
        if len(targets) > SHOWN and not options.quiet:
            text = _("Checking {targets}.").format(targets=counted(len(targets), *spec.noun))
            write(sys.stderr, f"{text}\n")
        left, state = check_or_refuse(spec.check, connect(targets), targets, spec.noun, options.invocation)
        if not (is_asked_for or options.quiet):
            write(sys.stderr, state)
        return left, state
    return targets, check_before_question(spec.check, connect(targets), targets, spec.noun) if is_asked_for else ""
