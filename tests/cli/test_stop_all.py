"""``direct stop --status``: it stops everything that has the status at this moment, and no other dispatch."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest

from dispatchkit import Dispatch, Listing
from dispatchkit.cli.providers.listed import Listed, windows
from dispatchkit.core.clock import SYSTEM
from dispatchkit.direct.commands import ReadDispatches
from dispatchkit.sandbox import Call, Fault
from dispatchkit.sandbox.wire import Json, Reply
from tests.cli.conftest import Played, Result, Terminal, run, run_child
from tests.cli.test_reads import start
from tests.cli.test_runs import counts, done, objects
from tests.cli.test_terminal import plain

if TYPE_CHECKING:
    from dispatchkit.core.call.client import Client
    from dispatchkit.direct.commands import DirectAuth

NOW = datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.fixture
def sending(played: Played) -> Played:
    """A provider where 3, 1500 and 2000 are sending, 9 is stopped, and the others were never started."""
    played.sandbox.direct.scheduled = 0
    start(played, 3, 1500, 2000, 9)
    assert run("direct", "stop", 9, "--yes", "--base-url", played.url).code == 0
    return played


def stop_all(played: Played, *more: object) -> Result:
    return run("direct", "stop", "--status", "sending", "--base-url", played.url, *more)


def stopped(played: Played) -> list[int]:
    return sorted(number for action, number in done(played) if action == "stop" and number != 9)


def test_another_process_stops_sending_dispatches(sending: Played) -> None:
    result = run_child("direct", "stop", "--status", "sending", "--yes", "--base-url", sending.url)
    assert result.code == 0, result
    assert stopped(sending) == [3, 1500, 2000]
    assert {sending.sandbox.direct.status(number) for number in (3, 1500, 2000)} == {"stopped"}
    assert sending.sandbox.direct.status(5) == "initiated"
    assert counts(result.out) == {"done": 3, "rejected": 0, "not sent": 0, "unknown": 0}
    assert result.err == (
        "3 dispatches have the status 'sending':\n  3  рассылка 3\n  1500  рассылка 1500\n  2000  рассылка 2000\n"
    )


def test_later_start_is_not_stopped(sending: Played) -> None:
    command = Terminal("direct", "stop", "--status", "sending", "--base-url", sending.url)
    command.read_until("[y/N] ")
    assert "Stop 3 dispatches: 3, 1500, 2000" in plain(command.screen)
    start(sending, 77)
    command.type("y\n")
    assert command.end() == 0
    assert stopped(sending) == [3, 1500, 2000]
    assert sending.sandbox.direct.status(77) == "sending"
    assert "3 of 3 dispatches" in plain(command.screen)
    assert re.search(r"\b77\b", plain(command.screen).replace(sending.url, "")) is None
    assert stop_all(sending, "--yes").code == 0
    assert stopped(sending) == [3, 77, 1500, 2000]


def test_ended_dispatch_is_rejected(sending: Played) -> None:
    command = Terminal("direct", "stop", "--status", "sending", "--base-url", sending.url)
    command.read_until("[y/N] ")
    sending.sandbox.direct.sending = sending.sandbox.direct.awaiting = 0
    command.type("y\n")
    assert command.end() == 1
    assert counts(plain(command.screen))["rejected"] == 3


def test_default_answer_is_no(sending: Played) -> None:
    command = Terminal("direct", "stop", "--status", "sending", "--base-url", sending.url)
    command.read_until("[y/N] ")
    command.type("\n")
    assert command.end() == 4
    assert stopped(sending) == []


def test_unattended_stop_needs_yes(sending: Played) -> None:
    result = stop_all(sending)
    assert result.code == 2
    assert "To go ahead without a question, pass --yes" in result.err
    assert stopped(sending) == []


@pytest.mark.parametrize("word", ["sendin", "SENDING", "отправляется"])
def test_misspelt_status_is_no_success(sending: Played, word: str) -> None:
    result = run("direct", "stop", "--status", word, "--yes", "--base-url", sending.url)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"dispatchkit: no dispatch has the status {word!r}, and it is not a known status. Those are: "
        "initiated, changing, scheduled, sending, awaiting, paused, stopped, done\n"
    )
    assert stopped(sending) == []


def test_nothing_to_stop_is_success(played: Played) -> None:
    result = stop_all(played)
    assert (result.code, result.out, result.err) == (0, "No dispatch has the status 'sending': nothing to stop.\n", "")
    result = stop_all(played, "--json")
    assert (result.code, result.out) == (0, "")
    result = stop_all(played, "--expected", 3)
    assert (result.code, result.out) == (2, "")
    assert "there are 0 ids, but --expected is 3" in result.err


def test_dry_run_stops_nothing(sending: Played) -> None:
    result = stop_all(sending, "--dry-run")
    assert result.code == 0
    assert f"POST {sending.url}/api/v1/dispatch/3/stop\nAuthorization: Basic ***\n" in result.out
    assert result.out.endswith("3 requests. None was sent.\n")
    assert sending.sandbox.direct_token not in result.out + result.err
    assert stopped(sending) == []


def test_stop_obeys_run_limits(sending: Played) -> None:
    assert stop_all(sending, "--yes", "--expected", 4).code == 2
    assert stopped(sending) == []
    result = stop_all(sending, "--yes", "--expected", 3, "--max-launches", 2)
    assert result.code == 1
    assert counts(result.out)["not started"] == 1
    assert len(stopped(sending)) == 2
    sending.sandbox.order(Fault.html(500, acts=False), path_contains="/stop")
    result = stop_all(sending, "--yes", "--json", "--timeout", 1)
    assert (result.code, [entry["state"] for entry in objects(result)]) == (3, ["unknown"])


def test_lost_stop_response_is_settled(sending: Played) -> None:
    sending.sandbox.order(Fault.lost_answer(), path_contains="/stop", times=3)
    assert stop_all(sending, "--yes").code == 0
    assert stopped(sending) == [3, 1500, 2000]


def test_stdin_token_is_read_once(sending: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPATCHKIT_DIRECT_TOKEN")
    arguments = ("--status", "sending", "--yes", "--base-url", sending.url, "--token-file", "-")
    assert run("direct", "stop", *arguments, stdin=sending.sandbox.direct_token).code == 0
    assert stopped(sending) == [3, 1500, 2000]


@pytest.mark.parametrize("more", [[5], ["--from", "f"], ["--column", "id"], ["--sandbox"]])
def test_status_excludes_ids(played: Played, more: list[object]) -> None:
    result = stop_all(played, *more)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("dispatchkit: ")
    assert "--status" in result.err
    assert result.err.count("\n") == 1
    assert played.sandbox.requests == 0


def test_any_non_empty_status(sending: Played) -> None:
    everywhere = ("--yes", "--base-url", sending.url)
    assert run("direct", "stop", "--status", "changing", *everywhere).code == 0
    assert run("direct", "stop", "--status", "", *everywhere).code == 2
    assert stopped(sending) == []


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"items": {}}', b'{"items": [{"dispatchId": 3}]}', b""])
def test_unreadable_list_is_not_empty(sending: Played, body: bytes) -> None:
    sending.sandbox.order(Fault.http(200, body), times=100)
    result = stop_all(sending, "--yes", "--timeout", 0.5)
    assert (result.code, result.out) == (1, "")
    assert "the provider could not be read" in result.err
    assert stopped(sending) == []


def test_ignored_filter_stops_nothing_else(sending: Played) -> None:
    items = [{"dispatchId": 3, "status": "sending"}, {"dispatchId": 1500, "status": "paused"}]
    sending.sandbox.order(Fault.http(200, json.dumps({"total": 2, "items": items}).encode()), path_contains="dispatch")
    result = stop_all(sending, "--yes")
    assert stopped(sending) == [3]
    assert result.code == 1, "there may be more that has the status"
    assert "The list is not complete: the provider counts 2, and listed 1. Try again.\n" in result.err


def test_incomplete_list_is_no_success(sending: Played) -> None:
    sending.sandbox.order(Fault.http(200, b'{"total": 3, "items": []}'))
    result = stop_all(sending, "--yes")
    assert (result.code, stopped(sending)) == (1, [])
    assert "the provider counts 3, and listed 0" in result.err


def test_duplicate_dispatch_is_stopped_once(sending: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    item: dict[str, Json] = {"dispatchId": 3, "status": "sending", "dispatchName": "\x1b[2J[red]"}
    twice = Reply.of_json(200, {"total": 2, "items": [item, item]})
    none = Reply.of_json(200, {"total": 0, "items": []})
    listing(
        sending,
        monkeypatch,
        lambda call: twice if "created_from" in call.query and "created_to" not in call.query else none,
    )
    result = stop_all(sending, "--yes")
    assert (result.code, stopped(sending)) == (0, [3])
    assert "Left out 1 repeated id.\n" in result.err
    assert "\x1b" not in result.err


def test_long_list_is_shortened(played: Played) -> None:
    played.sandbox.direct.scheduled = 0
    start(played, *range(1, 101))
    result = stop_all(played, "--yes", "--json")
    assert result.code == 0
    assert len(objects(result)) == 100
    assert "100 dispatches have the status 'sending':\n" in result.err
    assert "\n  and 95 more\n" in result.err


def test_stop_help_speaks_of_stopping() -> None:
    text = " ".join(run("direct", "stop", "--help").out.split())
    assert "Go on without a question." in text
    assert "Start without" not in text
    assert "Start only" not in text
    assert "Start no more" not in text


def test_stop_without_ids_names_status() -> None:
    result = run("direct", "stop", "--base-url", "http://127.0.0.1:1")
    assert result.code == 2
    assert "--status" in result.err
    assert "--status" not in run("direct", "start", "--base-url", "http://127.0.0.1:1").err


def test_windows_cover_all_time() -> None:
    now = datetime(2026, 1, 31, 9, 0, 0, 5, tzinfo=UTC)
    (first, no_end), *others = windows(now)
    assert (first, no_end) == (datetime(2026, 1, 31, 8, tzinfo=UTC), None)
    for began, ended in others:
        assert ended == first
        assert began is None or (ended is not None and began < ended)
        first = began
    assert first is None
    assert len(others) < 20


class Listing10k:
    """A client whose windows hold 2,000 dispatches each, up to 10,000."""

    _clock = SYSTEM

    def __init__(self) -> None:
        self.reads: list[ReadDispatches] = []

    async def perform(self, command: ReadDispatches) -> Listing[Dispatch]:
        self.reads.append(command)
        start = len(self.reads) * 2_000
        dispatches = (Dispatch(dispatch_id=start + each, status="sending", created=NOW) for each in range(1, 2_001))
        return Listing(tuple(dispatches)) if len(self.reads) <= 5 else Listing(())


async def test_windows_come_one_by_one() -> None:
    client = Listing10k()
    listed = Listed(cast("Client[DirectAuth]", client), "sending")
    reads = [(len(page), len(client.reads)) async for page in listed.pages()]
    assert reads[:6] == [(2_000, 1), (2_000, 2), (2_000, 3), (2_000, 4), (2_000, 5), (0, 6)]
    assert (len(listed.ids), len({*listed.ids}), len(listed.first)) == (10_000, 10_000, 5)
    assert listed.is_whole
    assert {(read.created_from, read.created_to) for read in client.reads[-1:]} == {(None, None)}
    gc.collect()
    assert sum(isinstance(each, Dispatch) for each in gc.get_objects()) < 2_000


def listing(played: Played, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Call], Reply | None]) -> None:
    """Answer what is asked for lists; what None is answered to, the sandbox answers."""
    own = played.sandbox.direct.answer
    monkeypatch.setattr(
        played.sandbox.direct, "answer", lambda call: (call.method == "GET" and answer(call)) or own(call)
    )


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_broken_list_is_failure(sending: Played, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]) -> None:
    refusal = Reply.of_json(403, {"error": {"code": 4030, "msg": "no"}})
    listing(sending, monkeypatch, lambda call: refusal if "created_to" in call.query else None)
    result = stop_all(sending, "--yes", *more)
    assert (result.code, stopped(sending)) == (1, [3, 1500, 2000])
    assert (
        "The list broke off: no (code 4030, HTTP 403). Stopping was tried for the 3 dispatches that were listed until "
        "then, as counted above; others may have the status 'sending'. To go on: dispatchkit direct stop --status "
        f"sending --base-url {sending.url}" in result.err
    )


def test_missing_creation_time_is_stopped(sending: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    none = Reply.of_json(200, {"total": 0, "items": []})
    whole = Reply.of_json(200, {"total": 1, "items": [{"dispatchId": 1500, "status": "sending"}]})
    listing(sending, monkeypatch, lambda call: whole if set(call.query) == {"status"} else none)
    assert stop_all(sending, "--yes").code == 0
    assert stopped(sending) == [1500]


def test_later_status_is_told(sending: Played) -> None:
    sending.sandbox.order(Fault.http(200, b'{"total": 1, "items": [{"dispatchId": 3, "status": "sending"}]}'))
    result = stop_all(sending, "--yes")
    assert (result.code, stopped(sending)) == (1, [3])
    assert (
        "Since then, 2 more dispatches have the status 'sending'. To stop what has it now: dispatchkit direct stop "
        f"--status sending --base-url {sending.url}\n" in result.err
    )


def test_limit_ends_the_list(sending: Played) -> None:
    result = stop_all(sending, "--yes", "--max-launches", 2)
    assert (result.code, len(stopped(sending))) == (1, 2)
    assert counts(result.out)["not started"] == 1
