"""Every public value says itself in JSON types, as its schema describes, and shows neither a secret nor a content."""

from __future__ import annotations

import enum
import importlib
import json
import math
import pkgutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import dispatchkit
from dispatchkit import (
    ActivateMailing,
    AddedMessage,
    AddedMessages,
    AddMessages,
    AltcraftClient,
    Attachment,
    AttemptEnded,
    Audience,
    AudienceCounts,
    BreakerOpened,
    Bucket,
    CallEnded,
    CallEvent,
    CallStarted,
    ChannelCounters,
    Counts,
    DeactivateMailing,
    DirectClient,
    Dispatch,
    DispatchBase,
    DispatchCounts,
    DispatchkitError,
    DispatchProgress,
    DispatchSource,
    Done,
    Event,
    FanOut,
    LaunchBroadcast,
    LaunchCheck,
    LaunchRegular,
    Ledger,
    Listing,
    LogEntry,
    Mailing,
    MailingProgress,
    MailingStatus,
    Message,
    NotSentError,
    Objection,
    Outcome,
    OutcomeUnknownError,
    Pace,
    Paused,
    ProviderSilentError,
    RejectedError,
    Report,
    Run,
    RunEnded,
    RunStarted,
    Snapshot,
    StartDispatch,
    State,
    StateRead,
    StopDispatch,
    StopReason,
    Target,
    ThrottledError,
    Waiting,
    WatchEnd,
    Window,
    errors,
    values,
)
from dispatchkit.altcraft.counters import ReadCounters
from dispatchkit.altcraft.mailings import ReadMailing, ReadMailings
from dispatchkit.altcraft.models import MailingAccepted
from dispatchkit.altcraft.reads import ReadLog, ReadStatus
from dispatchkit.cli.output.failures import Failure
from dispatchkit.cli.views.report_facts import FailureKind, RunReport
from dispatchkit.cli.views.snapshot import RunSnapshot
from dispatchkit.core.call import call_state
from dispatchkit.core.call.budget import BudgetStatistics
from dispatchkit.core.call.client import ClientStatistics
from dispatchkit.core.command import Command
from dispatchkit.core.fanout.outcome import failed
from dispatchkit.core.fanout.polling import TargetProgress
from dispatchkit.core.invalid_command import InvalidCommand
from dispatchkit.core.pacing.pace import PaceStatistics
from dispatchkit.direct.commands import ReadDispatch, ReadDispatches
from dispatchkit.direct.models import StartedDispatch
from dispatchkit.errors import Attempt
from dispatchkit.ledger.chunk import Chunk, Holder
from dispatchkit.ledger.codec import encode
from dispatchkit.ledger.pauses import PausedAccount
from dispatchkit.sandbox import Fault, Sandbox
from dispatchkit.values import HIDDEN, OutcomeValue, TypedValue, Value, columns
from tests.schema import SCHEMA, fits, schema_name

NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)
LOCAL = datetime(2026, 1, 31, 12)
ATTEMPTS = (
    Attempt(1, NOW, 0.5, "connection refused", sent=False),
    Attempt(2, NOW + timedelta(seconds=2), 0.25, "HTTP 403", sent=True),
)
MARK = "hunter2"
"""No `to_dict()` shows it."""
FILE = Attachment(name="price.pdf", data=MARK.encode(), media_type="application/pdf")
LAUNCH = LaunchBroadcast(82, audience=Audience("list", 1), content={"field": MARK}, attachments=[FILE])
COUNTS = DispatchCounts(total=7, extra={"new": MARK})
SOURCE = DispatchSource(type="FILE", name="a.csv")
RUN = Run(
    1, "friday", '{"provider": "direct"}', NOW, 5, plan_complete=True, stopped=False, fingerprint=MARK, repeat_window=60
)
HOLDER = Holder(MARK, 7, "here", since=NOW)
PACE = PaceStatistics(1, 2, 3, 4, 0.5, 6, 7, "closed")
BUDGET = BudgetStatistics(10.0, 1, 2, 3)
OF_CLIENT: dict[str, Any] = {"at": NOW, "provider": "direct", "base_url": "https://x"}
OF_CALL: dict[str, Any] = {
    **OF_CLIENT,
    "call": 1,
    "command_type": "StartDispatch",
    "target": 7,
    "index": 0,
    "run": "friday",
}


def ended(command: Any, error: DispatchkitError | None = None, result: Any = None) -> Outcome[Any]:
    """What came of a command: done, or the outcome of an error."""
    if error is not None:
        error = error.with_context(command, ATTEMPTS, "r")
    return Done(0, command, result, ATTEMPTS, "r") if error is None else failed(0, command, error)


def outcome(state: State, command: Any = LAUNCH) -> Outcome[Any]:
    errors_of: dict[State, DispatchkitError] = {
        State.REJECTED: ThrottledError("no", retry_after=5, retry_at=NOW),
        State.NOT_SENT: NotSentError("connection refused"),
        State.UNKNOWN: OutcomeUnknownError("no answer", is_final=True),
    }
    return ended(command, errors_of.get(state), MailingAccepted(82) if state is State.DONE else None)


def an_error(cls: type[DispatchkitError]) -> DispatchkitError:
    more: dict[str, Any] = {"status": 403, "code": 4031} if issubclass(cls, RejectedError) else {}
    return cls("no", command=LAUNCH, attempts=ATTEMPTS, request_id="r", **more)


RAISED = [
    cls for name in errors.__all__ if issubclass(cls := getattr(errors, name), DispatchkitError) and name != "State"
]
VALUES: list[Value] = [
    *map(outcome, State),
    ended(StopDispatch(7)),
    ended(InvalidCommand(ValueError(MARK)), NotSentError("not an id")),
    *map(an_error, RAISED),
    NotSentError("nobody asked"),
    errors.LedgerError(f"postgresql://user:{MARK}@db/x is away"),
    errors.RunStoppedError("it was stopped"),
    errors.AccountMismatchError("another account"),
    errors.RunHeldError("friday", pid=7, host="here", silent_for=95),
    errors.ChunkHeldError("friday", 3, pid=7, host="here", retry_after=12),
    errors.RepeatedTargetsError("launched at noon", runs={"noon": 2}),
    ProviderSilentError("friday", 3, since=NOW, left=7),
    *ATTEMPTS,
    Report(done=2, unknown=1),
    Snapshot(Report(done=2, unknown=1), None, 3),
    Snapshot(Report(done=2, not_started=5), 0.5, 3, settling=1, paused_for=0.0, time_left=10.0),
    StopReason("gave_up", "the provider is silent", 3, NOW),
    StopReason("window", "the window ended at 2026-01-31 18:00:00 UTC"),
    Window(not_after=NOW),
    Pace(rate=50, concurrency="auto"),
    PACE,
    BUDGET,
    ClientStatistics(PACE, BUDGET, 3),
    CallStarted(**OF_CALL, method="POST", url="https://x/start", request_id=None),
    AttemptEnded(**OF_CALL, number=1, result="HTTP 403", status=403, sent=True, outcome=State.REJECTED, duration=0.25),
    Waiting(**OF_CALL, seconds=0.5, attempts=1),
    StateRead(
        **OF_CALL, method="GET", url="https://x", result="cut", status=None, evidence="inconclusive", duration=15.0
    ),
    CallEnded(**OF_CALL, outcome=State.UNKNOWN, attempts=2, state_reads=1, duration=math.nan, error="CancelledError"),
    Paused(**OF_CLIENT, seconds=5.0, by="Retry-After"),
    BreakerOpened(**OF_CLIENT, seconds=5.0),
    RunStarted(**OF_CLIENT, run="friday", total=None, previously_finished=0),
    RunEnded(
        **OF_CLIENT,
        run=None,
        done=1,
        rejected=2,
        not_sent=3,
        unknown=4,
        not_started=None,
        stop_reason="gave_up",
        duration=1.5,
    ),
    Listing((Dispatch(dispatch_id=1, status="done"), LogEntry(NOW, "start")), 3),
    StartedDispatch(7),
    COUNTS,
    SOURCE,
    DispatchBase(included=SOURCE),
    Dispatch(dispatch_id=2**63 - 1, status="sending"),
    Dispatch(
        dispatch_id=7,
        status="sending",
        created=NOW,
        local_send_time=LOCAL,  # type: ignore[arg-type]
        message=MARK,
        base=DispatchBase(included=SOURCE),
        parts=COUNTS,
        extra={"text": MARK, "much": math.inf},
    ),
    MailingAccepted(82, replayed=True),
    MailingStatus(is_active=True, is_completed=False, status="Active"),
    DispatchProgress(target=7, at=NOW),
    DispatchProgress(target=7, at=NOW, end=WatchEnd.FINAL, status="done", name="x", messages=COUNTS),
    MailingProgress(target=7, at=NOW, end=WatchEnd.STALLED, unread="no answer", last_error="no sender", errors=1),
    LaunchCheck(target=7, name="x", status="initiated", recipients=1235),
    LaunchCheck(target=7, objections=(Objection.UNREAD, Objection.NO_RECIPIENTS), unread="no answer"),
    LogEntry(NOW, "start", "INFO", "Begin campaign"),
    LogEntry(LOCAL, ""),
    Audience("segment", 5),
    FILE,
    StartDispatch(7),
    StopDispatch(7),
    AddMessages(7, [Message(MARK, {"name": MARK})]),
    Message(MARK),
    Message(MARK, {"name": MARK}),
    AddedMessage(index=0, destination=MARK, message_uuid="uuid"),
    AddedMessages(7, (AddedMessage(index=0, destination=MARK, error_code=7401),)),
    ReadDispatch(7),
    ReadDispatches(status="sending", created_from=NOW),
    ActivateMailing(82, run_now=True, content={"field": MARK}),
    LAUNCH,
    LaunchRegular(82, limit=300),
    DeactivateMailing(82),
    ReadStatus(82),
    ReadLog(82, since=NOW),
    Mailing(mailing_id=82, name="sale", type="regular", is_active=True, update_time=NOW, extra={"call_url": MARK}),
    Mailing(mailing_id=82, update_time=LOCAL),
    AudienceCounts(all=10, subscribed_sendable=7, extra={"new": MARK}),
    ChannelCounters("email", AudienceCounts(all=10)),
    Listing((Mailing(mailing_id=82), ChannelCounters("email", AudienceCounts()))),
    ended(ReadMailing(82), result=Mailing(mailing_id=82)),
    ReadMailing(82, kind="regular"),
    ReadMailings(mailing_type="regular", is_active=True),
    ReadCounters(Audience("segment", 5), list_id=1),
    InvalidCommand(ValueError(MARK)),
    RUN,
    HOLDER,
    Chunk(0, 0, 5, HOLDER),
    Chunk(1, 5, 9),
    PausedAccount("hash", NOW, (RUN,)),
    Counts(planned=5),
    Bucket(NOW, done=5),
    Target(0, encode(LAUNCH)[1], "rejected", "no", 402, "r", 1, NOW),
    Target(1, encode(StartDispatch(7))[1], "planned"),
    Target(2, '{"type":"another.launch","version":9,"text":"hunter2"}', "planned"),
    RunSnapshot(RUN, Counts(planned=5), [HOLDER], NOW),
    Failure("5-9", "not_started"),
    FailureKind("rejected", 4031, "no", 5, (7, 8, 9)),
    RunReport(
        made_at=NOW,
        snapshot=RunSnapshot(RUN, Counts(planned=5), [HOLDER], NOW),
        first_target=Target(0, encode(LAUNCH)[1], "rejected", "no", 402, "r", 1, NOW),
        first_request=NOW,
        last_outcome=None,
        median_latency=0.5,
        p95_latency=None,
        retried=1,
        most_attempts=2,
        failures=(FailureKind("unknown", None, "no answer", 1),),
        other_failures=0,
        series=(Bucket(NOW, done=5),),
        resume=None,
        list_failures="dispatchkit ledger failures",
        export="dispatchkit ledger export",
    ),
]
ROWS = ("Outcome", "Error", "Target", "RunSnapshot")
"""What has a schema of its own for its flat row."""

# What has no to_dict(), and why.
EXEMPT = {
    **{name: "inside a call" for name in call_state.__all__ if isinstance(getattr(call_state, name), type)},
    "Account": "between a ledger and its store",
    "Afterwards": "inside a store",
    **dict.fromkeys(("ControlRoom", "RunStop", "Session"), "inside the control room"),
    **dict.fromkeys(("Story", "StoredClaim", "StoredOutcome"), "between a ledger's store and the control room"),
    **dict.fromkeys(("Axis", "Frame", "Line", "Tick"), "inside a chart"),
    "AltcraftWire": "has the token",
    "AudienceCheck": "inside a check; `LaunchCheck` is what a caller gets",
    "Batch": "inside a store",
    "ClientContext": "inside a client, with its token",
    "ClockOffset": "inside a call",
    "DirectAuth": "has the token",
    "ExpiringToken": "has the token",
    "File": "between a ledger and its store",
    "HeartbeatStatus": "between a ledger and its store",
    "LongField": "between the fields of a command and its text",
    "LogProbe": "a question, with a function",
    "MailingState": "inside a check or a watch",
    "Moment": "inside a store",
    "Migration": "inside a store",
    "FinishedTarget": "between a fan-out and its ledger",
    "PlanSummary": "between a fan-out and its ledger",
    "Profile": "may hold a token",
    "Probe": "a question, with a function",
    "Process": "identifies a process to the ledger",
    "RunStatus": "between a ledger and its watchers; `Snapshot` is what a reader gets",
    "Repeat": "between a ledger and its store; the error names the runs",
    "Replays": "inside a client",
    "Request": "has the token and the body",
    "Response": "has a body",
    "RetryPolicy": "has functions: tenacity's wait strategies",
    "RunPlan": "between a ledger and its store; `Run` is what a reader gets",
    "RunSettings": "between a fan-out and its ledger",
    "Settlement": "inside a call",
    "Share": "between a worker and the database",
    "TakeOver": "between a ledger and its calls",
    "TimeWindow": "inside a call",
    "TransportFailure": "inside a call",
    "Unsettled": "between a ledger and its store; `Target` is what a reader gets",
    "Watching": "inside a watch",
    "WorkItem": "between a fan-out and its ledger",
}


def public_classes() -> dict[str, type]:
    """The attrs classes and errors that the modules export, without the command line and the sandbox."""
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(dispatchkit.__path__, "dispatchkit."):
        if not module.name.startswith(("dispatchkit.sandbox", "dispatchkit.cli", "dispatchkit.__main__")):
            home = importlib.import_module(module.name)
            for name in getattr(home, "__all__", ()):
                cls = getattr(home, name)
                if isinstance(cls, type) and (attrs.has(cls) or cls.__module__ == errors.__name__):
                    found[name] = cls
    return {name: cls for name, cls in found.items() if not issubclass(cls, enum.Enum)}


def json_types_only(value: object) -> None:
    if type(value) is dict:
        for key, each in value.items():
            assert type(key) is str
            json_types_only(each)
    elif type(value) is list:
        for each in value:
            json_types_only(each)
    else:
        assert value is None or type(value) in {str, int, float, bool}, value


def named(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("value", VALUES, ids=named)
def test_values_fit_their_schema(value: Value) -> None:
    fields = value.to_dict()
    json_types_only(fields)
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields
    fits(fields, schema_name(type(value)))


@pytest.mark.parametrize("value", VALUES, ids=named)
def test_secrets_and_content_are_hidden(value: Value) -> None:
    assert MARK not in json.dumps(value.to_dict())
    assert MARK not in json.dumps(value.to_dict(flat=True))


@pytest.mark.parametrize("value", VALUES, ids=named)
def test_flat_rows_have_fixed_columns(value: Value) -> None:
    row = value.to_dict(flat=True)
    assert all(value is None or type(value) in {str, int, float, bool} for value in row.values())
    if not isinstance(value, Exception):
        assert tuple(row) == columns(type(value))
    if (name := schema_name(type(value))) in ROWS:
        fits(row, f"{name}Row")


def test_public_values_have_to_dict() -> None:
    classes = public_classes()
    without = {name for name, cls in classes.items() if not issubclass(cls, Value)}
    assert without - EXEMPT.keys() == set(), "give it a to_dict(), or a reason"
    assert EXEMPT.keys() - without == set(), "no reason is needed"
    untested = {cls for cls in classes.values() if issubclass(cls, Value)} - set(map(type, VALUES))
    assert untested <= {Event, CallEvent, TargetProgress}, "they are bases"


def test_schema_describes_every_key() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    definitions: dict[str, Any] = SCHEMA["$defs"]
    for value in VALUES:
        name = schema_name(type(value))
        assert [*definitions[name]["properties"]] == [*value.to_dict()], name
        if name in ROWS:
            assert [*definitions[f"{name}Row"]["properties"]] == [*value.to_dict(flat=True)], name
    for name, definition in definitions.items():
        assert definition["description"], name
        properties = definition.get("properties", {})
        if name != "OtherCommand":
            assert definition.get("additionalProperties", False) is False
            assert definition.get("required", []) == [*properties], name
        for key, schema in properties.items():
            assert "description" in schema or schema == {"$ref": "#/$defs/State"} or "$ref" in schema, (name, key)
    described = {schema_name(type(value)) for value in VALUES} | {f"{name}Row" for name in ROWS}
    parts = {"Time", "LocalTime", "State", "Command", "OtherCommand", "OutcomeError"}
    assert described | parts == set(definitions)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Outcome", {"more": 1}),
        ("Outcome", {"state": "happened"}),
        ("Outcome", {"error": {}}),
        ("Outcome", {"result": {"dispatch_id": 1, "settled": False}}),
        ("Outcome", {"command": {"type": "LaunchBroadcast", "content": {}}}),
        ("OutcomeRow", {"more": 1}),
    ],
)
def test_schema_refuses_other_values(name: str, change: dict[str, Any]) -> None:
    done = outcome(State.DONE)
    fields: dict[str, Any] = done.to_dict() if name == "Outcome" else done.to_dict(flat=True)
    fits(fields, name)
    with pytest.raises(AssertionError):
        fits({**fields, **change}, name)


def test_outcomes_share_keys_and_columns() -> None:
    outcomes = [*map(outcome, State), outcome(State.NOT_SENT, InvalidCommand(ValueError("x")))]
    assert len({tuple(outcome.to_dict()) for outcome in outcomes}) == 1
    assert len({tuple(outcome.to_dict(flat=True)) for outcome in outcomes}) == 1
    done, rejected, not_sent, unknown, invalid = (outcome.to_dict(flat=True) for outcome in outcomes)
    assert (done["target"], done["command_type"], done["result_replayed"]) == (82, "LaunchBroadcast", False)
    assert (rejected["error_type"], rejected["error_status"], rejected["error_retry_after"]) == (
        "ThrottledError",
        429,
        5,
    )
    assert (not_sent["attempts"], not_sent["started"], not_sent["duration"]) == (2, "2026-01-31T09:00:00.000000Z", 2.25)
    assert (unknown["error_is_final"], unknown["error_summary"]) == (True, "no answer")
    assert (invalid["target"], invalid["command_type"]) == (None, "InvalidCommand")


def test_launch_shows_names_and_sizes() -> None:
    assert LAUNCH.to_dict() == {
        "type": "LaunchBroadcast",
        "mailing_id": 82,
        "audience": {"kind": "list", "id": 1},
        "limit": None,
        "content_keys": ["field"],
        "attachments": [{"name": "price.pdf", "size": len(MARK), "media_type": "application/pdf"}],
    }
    row = LAUNCH.to_dict(flat=True)
    assert (row["audience_kind"], row["content_keys"], row["attachments"]) == ("list", "field", 1)


def test_empty_list_is_counted() -> None:
    row = LaunchBroadcast(82).to_dict(flat=True)
    assert (row["attachments"], row["content_keys"], row["audience_kind"], row["audience_id"]) == (0, None, None, None)
    assert Listing(()).to_dict(flat=True) == {"items": 0, "total": None, "received": 0, "missing": 0}
    assert NotSentError("no").to_dict(flat=True)["attempts"] == 0


@pytest.mark.parametrize(("window", "shown"), [(None, None), (60.0, 60.0), (1e9, "always")])
def test_longest_window_is_always(window: float | None, shown: object) -> None:
    run = attrs.evolve(RUN, repeat_window=window)
    assert run.to_dict()["repeat_window"] == shown
    snapshot = RunSnapshot(run, Counts(), [])
    fits(snapshot.to_dict(), "RunSnapshot")
    fits(snapshot.to_dict(flat=True), "RunSnapshotRow")


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ('{"provider": "direct"}', {"provider": "direct"}),
        (f'{{"base_url": "https://user:{MARK}@example.com"}}', {"base_url": "https://user:***@example.com"}),
        ('{"limit": NaN}', {"limit": "nan"}),
        ("[1]", {}),
        ("", {}),
    ],
    ids=["text", "password", "nan", "list", "empty"],
)
def test_settings_of_run_are_texts(settings: str, shown: dict[str, str]) -> None:
    fields = attrs.evolve(RUN, settings=settings).to_dict()
    assert fields["settings"] == shown
    fits(fields, "Run")


def test_unreadable_command_is_none() -> None:
    target = Target(0, encode(LAUNCH)[1], "planned").to_dict()
    assert (target["target"], target["command"]) == (82, LAUNCH.to_dict())
    target = Target(0, "no command", "planned").to_dict()
    assert (target["target"], target["command"]) == (None, None)


def test_error_counts_other_launches() -> None:
    error = errors.RepeatedTargetsError("launched at noon", runs={"noon": 2})
    assert error.to_dict()["runs"] == {"noon": 2}
    assert error.to_dict(flat=True)["runs"] == '{"noon": 2}'


class Word(enum.StrEnum):
    YES = "yes"


class Number(enum.IntEnum):
    ONE = 1


class Anything:
    """A type that nothing is known of."""

    def __repr__(self) -> str:
        return MARK


@attrs.frozen
class Foreign(Value):
    whatever: object


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.dates()
        | st.datetimes(timezones=st.none() | st.timezones())
        | st.datetimes(timezones=st.just(timezone(timedelta(hours=14))))
        | st.sampled_from(
            [Word.YES, Number.ONE, State.DONE, Anything(), ValueError(MARK), MARK.encode(), {MARK}.__len__]
        ),
        lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
)
def test_whatever_value_holds_becomes_json(whatever: object) -> None:
    for flat in (False, True):
        fields = Foreign(whatever).to_dict(flat=flat)
        json_types_only(fields)
        assert MARK not in json.dumps(fields, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**70, 2**70),
        (math.nan, None),
        (-math.inf, None),
        (Word.YES, "yes"),
        (Number.ONE, 1),
        (datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=3))), "2026-01-31T09:00:00.000000Z"),
        (LOCAL, "2026-01-31T12:00:00.000000"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "0001-01-01T00:00:00.000000+14:00"),
        (date(2026, 1, 31), "2026-01-31"),
        (b"abc", 3),
        (bytearray(b"abc"), 3),
        (memoryview(b"abc"), 3),
        ({"secret": MARK}, ["secret"]),
        (Anything(), "Anything"),
        (ValueError(MARK), "ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_types_are_shown_as(value: object, shown: object) -> None:
    assert Foreign(value).to_dict() == {"whatever": shown}


def test_hidden_fields_stay_hidden() -> None:
    @attrs.frozen
    class Launch(Command[object, None]):
        number: int
        text: str = attrs.field(repr=False)
        note: str = attrs.field(repr=lambda text: "***")
        key: str = attrs.field(metadata=HIDDEN)

        @property
        def target(self) -> int:
            return self.number + 1

        def request(self, wire: object, request_id: str | None) -> Any: ...

        def result(self, response: object, wire: object) -> None: ...

    fields = Launch(7, MARK, MARK, MARK).to_dict()
    assert fields == {"type": "Launch", "number": 7}
    fits(fields, "Command")
    assert ended(Launch(7, MARK, MARK, MARK)).to_dict()["target"] == 8


def test_foreign_outcomes_share_keys() -> None:
    @attrs.frozen
    class Done(OutcomeValue):
        index: int
        command: object
        result: object
        state = State.DONE
        error = None
        attempts = ()
        request_id = None

    fields = Done(0, StartDispatch(7), StartedDispatch(7)).to_dict()
    fits(fields, "Outcome")
    assert fields["target"] == 7
    assert columns(Done) == tuple(outcome(State.DONE).to_dict(flat=True))


def test_empty_value_costs_no_space() -> None:
    for cls in (Value, TypedValue, OutcomeValue):
        assert cls.__slots__ == ()
    assert not hasattr(outcome(State.DONE), "__dict__")


@pytest.mark.parametrize(
    "statement", ["import dispatchkit", "import dispatchkit.errors, dispatchkit.core.fanout.outcome"]
)
def test_cattrs_and_json_wait(statement: str) -> None:
    heavy = "{'cattrs', 'json'}"
    # What measures coverage may have imported json before.
    script = f"import sys\nbefore = {{*sys.modules}}\n{statement}\nprint(sorted({heavy} & ({{*sys.modules}} - before)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"


async def test_real_run_fits_schema(tmp_path: Path) -> None:
    async with Sandbox(dispatches=range(1, 20), mailings=range(1, 9), active=range(1, 5)) as sandbox:
        sandbox.order(Fault.http(404, b'{"error": {"code": 4040, "msg": "gone"}}'), path_contains="/2/")
        async with (
            DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct,
            AltcraftClient(sandbox.url, sandbox.altcraft_token) as altcraft,
            Ledger(tmp_path / "launch.db") as ledger,
        ):
            commands: list[Command[Any, Any]] = [LAUNCH, ReadStatus(1), ReadLog(1), ReadStatus(10**9)]
            commands[0] = attrs.evolve(LAUNCH, mailing_id=1)
            runs = [
                direct.start_many([1, 2, 3], ledger=ledger, run="friday"),
                direct.stop_many([1, 19, "x"]),  # type: ignore[list-item]
                FanOut(direct, [ReadDispatch(1), ReadDispatches(), ReadDispatch(100)]),
                FanOut(altcraft, commands),
            ]
            seen: set[object] = set()
            for run in runs:
                async for each in run:
                    fits(each.to_dict(), "Outcome")
                    fits(each.to_dict(flat=True), "OutcomeRow")
                    seen.add(each.state)
                    if each.error is not None:
                        fits(each.error.to_dict(), "Error")
                fits(run.report.to_dict(), "Report")
                if run.stop_reason is not None:
                    fits(run.stop_reason.to_dict(), "StopReason")
            assert seen == {State.DONE, State.REJECTED, State.NOT_SENT}
            fits(direct.statistics().to_dict(), "ClientStatistics")
            fits((await ledger.run("friday")).to_dict(), "Run")
            fits((await ledger.counts("friday")).to_dict(), "Counts")
            for chunk in await ledger.chunks("friday"):
                fits(chunk.to_dict(), "Chunk")
            targets = [target.to_dict() async for target in ledger.targets("friday")]
            for target in targets:
                fits(target, "Target")
            assert [target["target"] for target in targets] == [1, 2, 3]


def test_other_drafts_are_noticed() -> None:
    assert isinstance(SCHEMA["$defs"], Mapping)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert values.json_schema() == SCHEMA
