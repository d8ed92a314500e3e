"""``altcraft mailings``, ``mailing`` and ``counters``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Played, Result, run


def altcraft(played: Played, *arguments: object) -> Result:
    return run("altcraft", *arguments, "--base-url", played.url)


def test_mailings_are_shown_as_table(played: Played) -> None:
    result = altcraft(played, "mailings", "--limit", 2)
    assert (result.code, result.err) == (0, "")
    header, first, second = result.out.splitlines()
    assert header.split() == ["mailing", "type", "active", "name", "updated", "(UTC)"]
    assert first.split()[:5] == ["1", "broadcast", "yes", "рассылка", "1"]
    assert second.split()[0] == "2"


def test_mailings_are_written_for_programs(played: Played) -> None:
    told = [json.loads(line) for line in altcraft(played, "mailings", "--json").out.splitlines()]
    assert [each["mailing_id"] for each in told] == [*range(1, 101)]
    header, first, *_ = altcraft(played, "mailings", "--active", "--kind", "broadcast", "--csv").out.splitlines()
    assert header == "mailing_id,name,description,type,is_active,update_time,extra_keys"
    assert first.startswith("1,рассылка 1,,broadcast,True,")
    assert altcraft(played, "mailings", "--kind", "regular", "--json").out == ""
    assert altcraft(played, "mailings", "--csv", "--json").code == 2


def test_one_mailing_is_shown(played: Played) -> None:
    result = altcraft(played, "mailing", 82)
    assert (result.code, result.out.splitlines()[1].split()[0]) == (0, "82")
    unknown = altcraft(played, "mailing", 10_000_000)
    assert unknown.code == 1
    assert "mailing not found" in unknown.err
    assert json.loads(altcraft(played, "mailing", 82, "--json").out)["name"] == "рассылка 82"


@pytest.mark.parametrize("audience", ["list:1", "segment:5"])
def test_counters_show_whom_launch_reaches(played: Played, audience: str) -> None:
    result = altcraft(played, "counters", audience)
    header, email, sms = result.out.splitlines()
    assert header.split()[:3] == ["channel", "subscribed", "sendable"]
    assert (email.split()[:2], sms.split()[:2]) == (["email", "1000"], ["sms", "400"])
    [first, _] = [json.loads(line) for line in altcraft(played, "counters", audience, "--json").out.splitlines()]
    assert first["status"]["all"] == 1235


def test_wrong_audience_is_refused(played: Played) -> None:
    result = altcraft(played, "counters", "5")
    assert (result.code, "AUDIENCE must be list:ID or segment:ID" in result.err) == (2, True)
    assert altcraft(played, "counters", "list:1", "--list-id", 2).code == 2
    assert played.sandbox.requests == 0


def test_listed_mailings_are_launched(played: Played, tmp_path: Path) -> None:
    listed = tmp_path / "mailings.jsonl"
    listed.write_text(altcraft(played, "mailings", "--limit", 3, "--json").out)
    result = altcraft(played, "deactivate", "--from", listed, "--yes", "--no-ledger")
    assert result.code == 0
    assert [act.target for act in played.sandbox.acts] == [1, 2, 3]
