"""What came of a run: double, lost and false launches, and what stayed unknown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tests.nemesis.provider import Act

__all__ = ["Report", "Verdict", "judge"]


@dataclasses.dataclass(frozen=True)
class Report:
    """What one process said, and when it lived."""

    name: str
    began: float
    ended: float
    status: int | None
    told: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Outcomes by id, as JSON."""
    claims_all: bool = False
    """Whether exit status 0 says that every target is done."""


@dataclasses.dataclass
class Verdict:
    """Counts of targets, and why, for people."""

    double: int = 0
    """Targets that were launched more than once. It must be 0."""
    lost: int = 0
    """Targets that are said to be done and were never launched, or were left unlaunched. It must be 0."""
    false: int = 0
    """Targets that are said not to be launched and were; launches after a stop; other untrue reports. It must be 0."""
    unknown: int = 0
    """Targets whose outcome stayed unknown: allowed, and to be few."""
    notes: list[str] = dataclasses.field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep the first few reasons."""
        if len(self.notes) < 12:
            self.notes.append(text)

    @property
    def clean(self) -> bool:
        """Whether the promise was kept."""
        return not (self.double or self.lost or self.false)


def judge(
    targets: Sequence[int],
    acts: Mapping[int, Sequence[Act]],
    states: Mapping[int, str],
    reports: Sequence[Report] = (),
    quiet: Sequence[tuple[float, float]] = (),
) -> Verdict:
    """Compare what was said with what was done.

    Args:
        targets: The ids that were to be launched.
        acts: What the provider did, by id.
        states: What the ledger says in the end, by id.
        reports: What the processes said.
        quiet: Times between which no start may arrive, as a stop was promised.
    """
    verdict = Verdict()
    for target in targets:
        did, state = acts.get(target, ()), states.get(target, "missing")
        if len(did) > 1:
            verdict.double += 1
            first = did[0].arrived
            times = ", ".join(f"+{act.arrived - first:.2f}/{act.at - first:.2f} s" for act in did)
            verdict.note(f"{target} acted {len(did)} times (arrived/acted {times}), state {state}")
        if state in {"unknown", "sending"}:
            verdict.unknown += 1
        elif state == "done":
            if not did:
                verdict.lost += 1
                verdict.note(f"{target} is done and never acted")
        elif did:
            verdict.false += 1
            verdict.note(f"{target} is {state} and acted")
        else:  # planned, not_sent, rejected: the provider refuses nothing
            verdict.lost += 1
            verdict.note(f"{target} is {state} and was never launched")
    for target in acts.keys() - set(targets):
        verdict.false += 1
        verdict.note(f"{target} acted and was never asked for")
    _judge_reports(verdict, targets, acts, reports)
    for since, until in quiet:
        late = [act.arrived - since for did in acts.values() for act in did if since < act.arrived < until]
        if late:
            verdict.false += len(late)
            verdict.note(f"{len(late)} launches after the stop, the last {max(late):.2f} s after the promised time")
    return verdict


def _judge_reports(
    verdict: Verdict, targets: Sequence[int], acts: Mapping[int, Sequence[Act]], reports: Sequence[Report]
) -> None:
    for report in reports:
        others = [other for other in reports if other is not report]
        for target, state in report.told.items():
            did = acts.get(target, ())
            # An act is this process's for certain if no other lived when its request arrived.
            own = [
                act
                for act in did
                if report.began <= act.arrived <= report.ended
                and not any(other.began <= act.arrived <= other.ended for other in others)
            ]
            if state in {"not_sent", "rejected"} and own:
                verdict.false += 1
                verdict.note(f"{report.name} said {state} of {target}, which it had launched")
            if state == "done" and not any(act.at <= report.ended + 0.05 for act in did):
                verdict.false += 1
                verdict.note(f"{report.name} said done of {target}, which had not acted")
        if report.claims_all and report.status == 0:
            missing = [each for each in targets if not any(act.at <= report.ended + 0.05 for act in acts.get(each, ()))]
            if missing:
                verdict.false += 1
                verdict.note(f"{report.name} ended with status 0, and {len(missing)} targets were not launched")
