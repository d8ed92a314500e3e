"""The rows of a file that cannot be used: counted, and the first of them shown together."""

from __future__ import annotations

from collections.abc import Callable

from dispatchkit.cli.translate import _

__all__ = ["BadRows", "UnusableFileError"]

_SHOWN = 20


class UnusableFileError(ValueError):
    """A file has rows that cannot be used. Nothing of it is launched.

    Args:
        lines: What to print, line by line.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _line(number: int) -> str:
    return _("line {number}").format(number=number)


class BadRows:
    """Collects what is wrong with the rows of one file.

    Args:
        name: What messages call the file.
        place: What they call the row of a number.
    """

    def __init__(self, name: str, place: Callable[[int], str] = _line) -> None:
        self.name = name
        self.place = place
        self.count = 0
        self._first: list[tuple[str, str]] = []

    def add(self, number: int, problem: str, *, place: str | None = None) -> None:
        """Note what is wrong with a row.

        Args:
            number: The row.
            problem: What is wrong, and what to do about it.
            place: What to call it; None: as every other row.
        """
        self.count += 1
        if len(self._first) < _SHOWN:
            self._first.append((self.place(number) if place is None else place, problem))

    def check(self) -> None:
        """Refuse the file if it has such rows.

        Raises:
            UnusableFileError: It has. One row is one line; more of them come under a headline.
        """
        if not self.count:
            return
        if self.count == 1:
            place, problem = self._first[0]
            raise UnusableFileError(f"{self.name}, {place}: {problem}")
        lines = [
            _("{name}: {count:,} rows cannot be used, so nothing was started:").format(name=self.name, count=self.count)
        ]
        lines += [f"  {place}: {problem}" for place, problem in self._first]
        if self.count > _SHOWN:
            lines.append("  " + _("and {count:,} more").format(count=self.count - _SHOWN))
        raise UnusableFileError(*lines)
