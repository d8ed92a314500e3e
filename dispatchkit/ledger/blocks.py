"""Blocks of targets. The tally tells where targets in some states can be, so the others are not read.

A block has the targets of `BLOCK` consecutive indexes that belong to the same chunk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from dispatchkit.ledger.run import Counts

__all__ = ["BLOCK", "TALLIED", "counts_of", "stretches", "stretches_with"]

BLOCK = 1024
"""Targets of a block."""
TALLIED = ("sending", "done", "rejected", "not_sent", "unknown", "final")
"""The columns of a tally. The targets that they do not count are planned."""
_LONGEST = 64
"""Maximum blocks of a stretch: a run of a thousand million targets has a million of them."""


def stretches(start: int, end: int, others: Mapping[int, int], *, first: int = 0) -> Iterator[range]:
    """The stretches of indexes, in order, that can hold a wanted target.

    >>> [*stretches(0, 5000, {0: 1024, 1: 1023, 3: 1024})]
    [range(1024, 3072), range(4096, 5000)]

    Args:
        start: The first index of the chunk or the run.
        end: The index after the last one.
        others: The number of targets in other states, by block.
        first: Earlier indexes are left out.
    """
    first = max(start, first)
    block = begin = first // BLOCK
    while block * BLOCK < end:
        size = min(end, (block + 1) * BLOCK) - max(start, block * BLOCK)
        is_over = others.get(block, 0) >= size
        if (is_over or block - begin == _LONGEST) and block > begin:
            yield range(max(first, begin * BLOCK), block * BLOCK)
            begin = block
        block += 1
        if is_over:
            begin = block
    if begin < block:
        yield range(max(first, begin * BLOCK), end)


def counts_of(total: int | None, sums: Sequence[int]) -> Counts:
    """The counts of so many targets, from the sums of the columns of `TALLIED`."""
    sending, done, rejected, not_sent, unknown, final = sums
    planned = (total or 0) - sending - done - rejected - not_sent - unknown
    return Counts(planned, sending, done, rejected, not_sent, unknown, final)


def stretches_with(
    total: int, rows: Sequence[Sequence[int]], states: Collection[str], *, start: int = 0, end: int | None = None
) -> Sequence[range]:
    """The stretches of a run's indexes that may hold targets in some states.

    Args:
        total: The number of the run's targets.
        rows: Each block's number, with the sums of `TALLIED`, in order.
        states: The states; none means all.
        start: Earlier indexes are left out.
        end: This index and later ones are left out.
    """
    end = total if end is None else min(end, total)
    whole = _stretches_with(total, rows, states)
    cut = (range(max(start, each.start), min(end, each.stop)) for each in whole)
    return [each for each in cut if each]


def _stretches_with(total: int, rows: Sequence[Sequence[int]], states: Collection[str]) -> Sequence[range]:
    if not states:
        return [range(total)]
    wanted = [place for place, name in enumerate(TALLIED[:-1], 1) if name in states]
    if "planned" in states:
        other = {row[0]: sum(row[1:-1]) - sum(row[place] for place in wanted) for row in rows}
        return [*stretches(0, total, other)]
    blocks = [row[0] for row in rows if any(row[place] for place in wanted)]
    return [range(block * BLOCK, min(total, (block + 1) * BLOCK)) for block in blocks]
