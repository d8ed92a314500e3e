"""The sandbox of ``--sandbox``: it knows the ids of one command, and ends with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatchkit.sandbox import Call, Ids, Sandbox

if TYPE_CHECKING:
    from dispatchkit.cli.input.ids import Targets

__all__ = ["for_altcraft", "for_direct", "start_in"]


def for_direct(targets: Targets) -> Sandbox:
    """A sandbox that knows these dispatches."""
    return Sandbox(dispatches=Ids(*targets.parts))


def for_altcraft(targets: Targets, *, active: bool, regular: bool) -> Sandbox:
    """A sandbox that knows these mailings."""
    mailings = Ids(*targets.parts)
    return Sandbox(mailings=mailings, active=mailings if active else (), regulars=mailings if regular else ())


def start_in(sandbox: Sandbox, number: int) -> None:
    """Start a dispatch in the sandbox: only a started one can be stopped."""
    headers = {"Authorization": f"Basic {sandbox.direct_token}"}
    sandbox.direct.answer(Call("POST", f"/api/v1/dispatch/{number}/start", headers=headers))
