"""A set of ids that costs less than a byte an id where they are dense."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["IdSet"]

_BITS = 9  # 512 ids a page: larger pages cost sparse ids more, smaller ones cost dense ids more
_MASK = (1 << _BITS) - 1


class IdSet:
    """Non-negative integers, as bits of pages.

    10 million consecutive ids take 5 MB; ids that share no page take about 150 bytes each.
    """

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[int, int] = {}

    def add(self, number: int) -> bool:
        """Add an id. Returns whether it is new."""
        page, bit = number >> _BITS, 1 << (number & _MASK)
        bits = self._pages.get(page, 0)
        if bits & bit:
            return False
        self._pages[page] = bits | bit
        return True

    def add_new(self, numbers: Iterable[int]) -> list[int]:
        """Add ids. Returns those that are new, in their order, each once."""
        pages, new = self._pages, list[int]()
        get, append = pages.get, new.append
        for number in numbers:
            page, bit = number >> _BITS, 1 << (number & _MASK)
            bits = get(page, 0)
            if not bits & bit:
                pages[page] = bits | bit
                append(number)
        return new

    def __contains__(self, number: int) -> bool:
        return bool(self._pages.get(number >> _BITS, 0) >> (number & _MASK) & 1)

    def between(self, low: int, high: int) -> Iterator[int]:
        """The ids from ``low`` to ``high``, both included, in ascending order."""
        first, last = low >> _BITS, high >> _BITS
        few = last - first < len(self._pages)
        pages = range(first, last + 1) if few else sorted(page for page in self._pages if first <= page <= last)
        for page in pages:
            bits, start = self._pages.get(page, 0), page << _BITS
            while bits:
                number = start + (bits & -bits).bit_length() - 1
                if low <= number <= high:
                    yield number
                bits &= bits - 1
