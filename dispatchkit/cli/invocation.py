"""The command line of this process, so that a hint can print the whole next line."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from dispatchkit.cli.translate import _
from dispatchkit.redaction import without_passwords

if TYPE_CHECKING:
    import typer

    from dispatchkit.profiles import Profile

__all__ = ["RESUMED", "Invocation", "PlanOptions", "command_line", "refuse_swallowed"]

_Word: TypeAlias = tuple[str, tuple[str, ...]]

RESUMED = (
    "concurrency", "rate", "stop_after_failures", "give_up_after", "canary", "canary_timeout", "not_before",
    "not_after", "zone", "never_repeat", "account", "timeout", "attempt_timeout", "profile", "token_file", "insecure",
    "proxy", "ca_file", "client_cert", "client_key", "log_file", "notify",
)  # fmt: skip
"""The options of a launch that a resume of its run takes too."""
_IN_THE_RUN = frozenset({"profile", "account", "insecure"})
"""Options that the columns of a run tell."""
_SECRET = frozenset({"notify"})
"""Options whose values may hold a secret. A ledger has other readers, so it keeps only that they were given."""
_FILES = frozenset({"token_file", "ca_file", "client_cert", "client_key", "log_file"})


def command_line(*words: str) -> str:
    """A line to type, quoted for the shell."""
    return shlex.join(["dispatchkit", *words])


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The arguments between ``plan`` and the launch on the command line."""

    ledger: str = field(repr=False)
    """Empty if it is missing, as is ``run``. The launch says so: it knows the whole line to type next."""
    run: str
    from_: str | None
    chunk_size: int
    rate: float | None
    concurrency: int | None


@dataclass(frozen=True)
class Invocation:
    """The command line, as it was parsed."""

    words: tuple[_Word, ...] = ()
    """The name of each parameter and what stands for it; a command has no name."""
    plan: PlanOptions | None = None
    """The options of ``dispatchkit plan``, if it precedes the command."""
    profile: Profile | None = None
    """The profile, if the command line or the environment names one."""

    @classmethod
    def of(cls, context: typer.Context) -> Invocation:
        """The command line of a context and of those above it."""
        words: list[_Word] = []
        chain: list[Any] = [context]
        while (parent := chain[-1].parent) is not None:
            chain.append(parent)
        for each in reversed(chain[:-1]):
            words.append(("", (each.info_name or "",)))
            words += _given(each)
        return cls(tuple(words), context.obj if isinstance(context.obj, PlanOptions) else None)

    def given(self, *names: str) -> list[str]:
        """The arguments that were typed for these parameters."""
        return [word for name, words in self.words if name in names for word in words]

    def to_keep(self) -> str | None:
        """The options that a run keeps for the line that resumes it, as JSON; None without any."""
        kept = {
            name: [_from_anywhere(name, word) for word in (words[:1] if name in _SECRET else words)]
            for name, words in self.words
            if name in RESUMED and name not in _IN_THE_RUN
        }
        return json.dumps(kept) if kept else None

    def with_kept(self, kept: str | None) -> list[str]:
        """The arguments of this command line that a resume takes too, and those that a run keeps.

        Hours that are past are left out: they would be refused.
        """
        typed = [(name, words) for name, words in self.words if name in RESUMED]
        others = [
            (name, (*words,))
            for name, words in _read_kept(kept).items()
            if name not in _SECRET and not self.given(name)
        ]
        return [*chain.from_iterable(words for _, words in _without_past_hours([*typed, *others]))]

    def lacks_notify(self, kept: str | None) -> bool:
        """Whether a run was launched with ``--notify``, and this command line has none."""
        return "notify" in _read_kept(kept) and not self.given("notify")

    def again(self, *more: str, without: Iterable[str] = (), instead: Mapping[str, str] | None = None) -> str:
        """The same command line, without some parameters, with other values, and with more words at its end.

        It lacks ``--yes``: a line that is copied asks before it launches. It lacks hours that are past, too.
        """
        dropped = {"yes", *without}
        other: Mapping[str, str] = instead or {}
        kept: list[_Word] = [
            (name, (*words[:-1], other[name]) if name in other else words)
            for name, words in self.words
            if name not in dropped
        ]
        return command_line(*chain.from_iterable(words for _, words in _without_past_hours(kept)), *more)

    def first(self, name: str, *words: str) -> str:
        """The same command line, with a parameter right behind its first command."""
        kept = [word for word in self.words if word[0] != name]
        return Invocation((*kept[:1], (name, words), *kept[1:])).again()


def refuse_swallowed(context: typer.Context) -> None:
    """Refuse an option whose value is the next option, as in ``--run --json``.

    Raises:
        click.UsageError: There is one.
    """
    options = {name for each in context.command.params for name in (*each.opts, *each.secondary_opts)}
    for name, words in _given(context):
        for option, value in zip(words[::2], words[1::2], strict=False):
            if name and option in options and (value.startswith("--") or (value in options and value[:1] == "-")):
                context.fail(_("{option} needs a value, and {value} is an option").format(option=option, value=value))


def _given(context: typer.Context) -> Iterable[_Word]:
    values: Mapping[str, Any] = context.params
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or values.get(name) is None:
            continue
        value = values[name]
        many: list[object] = [*value] if isinstance(value, list | tuple) else [value]
        if parameter.param_type_name == "argument":
            yield name, tuple(map(_shown, many))
        elif isinstance(value, bool):
            yield name, ((parameter.opts if value else parameter.secondary_opts)[0],)
        else:
            shown = _shown_content if name == "content" else _shown
            yield name, tuple(word for each in many for word in (parameter.opts[0], shown(each)))


def _from_anywhere(name: str, word: str) -> str:
    """A word as another process may type it, in another folder."""
    if word.startswith("--"):
        return word
    return str(Path(word).absolute()) if name in _FILES and word != "-" else word


def _read_kept(kept: str | None) -> dict[str, list[str]]:
    """The options that a run keeps. Other people may write to its ledger, so each must be what its name says."""
    try:
        found: object = json.loads(kept or "{}")
    except (ValueError, RecursionError):
        found = None
    options = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    read: dict[str, list[str]] = {}
    for name, value in options.items():
        if name not in RESUMED or name in _IN_THE_RUN or not isinstance(value, list):
            continue
        words = [*map(str, cast("list[object]", value))]
        if 0 < len(words) <= 2 and words[0] == f"--{name.replace('_', '-')}":
            read[name] = words
    return read


def _without_past_hours(words: Sequence[_Word]) -> Sequence[_Word]:
    """The arguments without hours that are past."""
    given = {name: each[-1] for name, each in words if name in {"not_before", "not_after", "zone"}}
    if len(given) == ("zone" in given):
        return words
    # Few command lines have hours.
    from dispatchkit.cli.hours import past_hours  # noqa: PLC0415
    from dispatchkit.core.clock import SYSTEM  # noqa: PLC0415

    past = past_hours(given, SYSTEM.now())
    return [(name, each) for name, each in words if name not in past]


def _shown_content(value: object) -> str:
    """A content as a line to type names it: by its file. Its values are the customer's, and are never shown."""
    text = str(value)
    return text if text.startswith("@") else "@FILE"


def _shown(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return without_passwords(str(value))
