"""Write and read commands that differ in one number only, without a JSON library.

A run has a million such commands. The text of each is that of the one before, with another number in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter, is_
from typing import Never, cast

import attrs

from dispatchkit.core.command import Command
from dispatchkit.ledger.contents import CommandText, Content

__all__ = ["Template", "is_constant", "number_field"]

_MAX_DIGITS = 18
"""Maximum digits of a number that a template reads."""
_DIGITS = rf"[1-9][0-9]{{0,{_MAX_DIGITS - 1}}}"
_are_numbers = re.compile(rf"(?:{_DIGITS}\n)*+").fullmatch


def number_field(cls: type[object]) -> str | None:
    """The field in which commands of a class differ: the only one without a default, if it is a number."""
    fields = attrs.fields(cast("type[attrs.AttrsInstance]", cls))
    required = [field for field in fields if field.default is attrs.NOTHING]
    if len(required) != 1 or required[0].type not in {int, "int"} or not all(field.init for field in fields):
        return None
    return str(required[0].name)


def is_constant(value: object) -> bool:
    """Whether a value can be hashed, so that it never changes. The hash of a large file is not computed."""
    if isinstance(value, (bytes, str)):
        return True
    if isinstance(value, tuple):
        return all(map(is_constant, cast("tuple[object, ...]", value)))
    cls: type[object] = type(value)
    if attrs.has(cls) and getattr(cls, "__hash__", None) is not None:
        return all(is_constant(getattr(value, field.name)) for field in attrs.fields(cls) if field.eq)
    try:
        hash(value)
    except TypeError:
        return False
    return True


class Template:
    """The text of one command, without its number.

    Use `of` to make one.
    """

    __slots__ = (
        "_after",
        "_before",
        "_cls",
        "_contents",
        "_more",
        "_names",
        "_number",
        "_others",
        "_pattern",
        "_read_number",
        "_read_others",
    )

    def __init__(self, cls: type[Command[Never, object]], number: str, others: dict[str, object]) -> None:
        self._cls = cls
        self._number = number
        self._names = others
        self._others = tuple(others.values())
        self._read_number: Callable[[object], object] = attrgetter(number)
        self._read_others: Callable[[object], object] | None = attrgetter(*others) if others else None
        self._more = len(others) > 1
        self._before = self._after = ""
        self._pattern: Callable[[str], re.Match[str] | None]
        self._contents: Mapping[str, Content] = {}

    @classmethod
    def of(cls, command: Command[Never, object], text: str) -> Template | None:
        """The template of a command and its text. None if it has more than one number, or a value that may change."""
        number = number_field(type(command))
        if number is None or type(getattr(command, number)) is not int:
            return None
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(command)))
        template = cls(
            type(command),
            number,
            {field.name: getattr(command, field.name) for field in fields if field.name != number},
        )
        if not is_constant(template._others):
            return None
        marker = f'"{number}":'
        if isinstance(text, CommandText):
            template._contents = text.contents
        template._before, found, rest = text.partition(f"{marker}{getattr(command, number)}")
        if not found or rest[:1] not in {",", "}"} or marker in template._before or marker in rest:
            return None
        template._before += marker
        template._after = rest
        number_only = rf"{re.escape(template._before)}({_DIGITS}){re.escape(rest)}"
        template._pattern = re.compile(number_only).fullmatch
        return template

    def write(self, command: Command[Never, object]) -> str | None:
        """The text of a command; None if it differs in more than the number."""
        if type(command) is not self._cls:
            return None
        if self._read_others is not None:
            others = self._read_others(command)
            if self._more:
                if not all(map(is_, cast("tuple[object, ...]", others), self._others)):
                    return None
            elif others is not self._others[0]:
                return None
        number = self._read_number(command)
        if type(number) is not int:
            return None
        text = f"{self._before}{number}{self._after}"
        return CommandText(text, self._contents) if self._contents else text

    def write_all(self, numbers: Iterable[int]) -> str:
        """The texts of the commands with these numbers, one a line."""
        between = f"{self._after}\n{self._before}"
        return f"{self._before}{between.join(map(str, numbers))}{self._after}"

    def read(self, text: str) -> Command[Never, object] | None:
        """The command of a text. None if more than the number differs, or if no command has the number.

        Raises:
            Exception: The class refuses the number.
        """
        number = self.number(text)
        return None if number is None else self._cls(**self._names, **{self._number: number})

    def number(self, text: str) -> int | None:
        """The number in a text; None if the text differs in more, or the number is none of a command."""
        found = self._pattern(text)
        return None if found is None else int(found[1])

    def numbers(self, texts: Sequence[str]) -> list[str] | None:
        """The numbers in texts, as they stand there; None if one of the texts differs in more. See `number`."""
        # Texts are one line each, so that what is between two numbers is between two texts.
        lines, before, after = "\n".join(texts), self._before, self._after
        if not (lines.startswith(before) and lines.endswith(after)):
            return None
        numbers = lines[len(before) : -len(after)].split(f"{after}\n{before}")
        are_all = len(numbers) == len(texts) and _are_numbers("\n".join([*numbers, ""])) is not None
        return numbers if are_all else None
