"""Questions that a person at the terminal must answer before anything is sent."""

from __future__ import annotations

import sys

import typer

from dispatchkit.cli.text import escape_control, write

__all__ = ["ask", "confirm"]


def ask(what: str) -> None:
    """Ask whether to do it; without a terminal, refuse and name the option that answers.

    Raises:
        typer.Exit: It is not to be done.
    """
    confirm(f"{what[0].upper()}{what[1:]}?", f"this would {what}: pass --yes to do it without a question")


def confirm(question: str, refusal: str) -> None:
    """Ask a question; without a terminal, refuse.

    Args:
        question: What is asked. Only yes goes on.
        refusal: What is said without a terminal.

    Raises:
        typer.Exit: With status 1 after no, 2 without a terminal, 130 after Ctrl-C.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        write(sys.stderr, f"dispatchkit: {escape_control(refusal)}\n")
        raise typer.Exit(2)
    write(sys.stderr, f"{escape_control(question)} [y/N] ")
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        write(sys.stderr, "\nNothing was sent.\n")
        raise typer.Exit(130) from None
    if answer.strip().lower() not in {"y", "yes"}:
        write(sys.stderr, "Nothing was sent.\n")
        raise typer.Exit(1)
