"""Altcraft in XML."""

from __future__ import annotations

import sys

import pytest

from tests.sandbox.scripts import Clock, altcraft, ask, ask_xml

FILE = "<name>a &amp; b.pdf</name><data>data:application/pdf;base64,JVBERg==</data>"


def test_an_answer_reads_as_documented():
    provider = altcraft()
    reply = ask_xml(provider, "activate/", "<id>82</id><run_now>true</run_now>")
    assert reply.body == b"<xml><data/><error>0</error><error_text>Successful operation</error_text></xml>"
    assert reply.headers["Content-Type"] == "application/xml; charset=utf-8"
    assert provider.launches == {82: 1}


def test_every_documented_field_is_taken():
    provider = altcraft()
    inner = (
        "<id>82</id><override_source_id>1</override_source_id><override_source_type>list</override_source_type>"
        "<run_now>true</run_now><override_limit>300</override_limit><content><field>value</field><empty/></content>"
    )
    for attach in (
        f"<attach array='true'>{FILE}</attach>",
        f"<attach>{FILE}</attach>",
        f"<attach>{FILE}</attach>" * 2,
        f"<attach>{FILE}</attach>" * 3,
    ):
        assert b"<error>0</error>" in ask_xml(provider, "activate/", inner + attach).body
    assert provider.launches == {82: 4}


@pytest.mark.parametrize(
    "inner",
    [
        "",
        "<id/>",
        "<id>eighty</id>",
        "<id>82.0</id>",
        "<id> 82</id>",
        "<id>82</id><id>82</id>",
        "<id array='true'>82</id>",
        "<id>82</id><run_now>1</run_now>",
        "<id>82</id><override_limit>-1</override_limit>",
        "<id>82</id><attach>file</attach>",
    ],
)
def test_incorrect_fields_are_refused(inner):
    provider = altcraft()
    assert b"<error>400</error>" in ask_xml(provider, "activate/", inner).body
    assert not provider.acts


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<xml>",
        b"<xml/>",
        b"<json><id>82</id></json>",
        b'<!DOCTYPE xml [<!ENTITY a "82">]><xml><token>sandbox</token><id>&a;</id></xml>',
    ],
)
def test_an_unreadable_body_is_refused(body):
    reply = ask(altcraft(), "activate/", {"Content-Type": "application/xml"}, body=body)
    assert b"<error>40" in reply.body


@pytest.mark.parametrize(("sloppy", "status"), [(True, b'"Inactive"'), (False, b"Inactive")])
def test_status_may_have_literal_quotes(sloppy, status):
    reply = ask_xml(altcraft(sloppy_xml=sloppy), "get_status", "<id>82</id>")
    assert reply.body == (
        b"<xml><data><is_active>false</is_active><is_completed>false</is_completed><status>"
        + status
        + b"</status></data>"
        b"<error>0</error><error_text>Successful operation</error_text></xml>"
    )


def test_single_item_array_is_marked():
    clock = Clock(1_535_155_200.0)
    provider = altcraft(clock, active=[82], run_seconds=30)
    empty = ask_xml(provider, "log_v2", "<id>82</id>").body
    ask_xml(provider, "broadcasts/start", "<id>82</id>")
    one = ask_xml(provider, "log_v2", "<id>82</id><limit>5</limit><from_time>2018-08-25T00:00:00Z</from_time>").body
    clock.pass_(30)
    two = ask_xml(provider, "log_v2", "<id>82</id>").body
    assert b"<data/>" in empty
    assert (
        b"<data array='true'><level>INFO</level><message>Begin campaign</message><state>start</state>"
        b"<time>2018-08-25T00:00:00.000Z</time><value/></data>"
    ) in one
    assert one.endswith(b"<total_count>1</total_count></xml>")
    assert two.count(b"<data>") == 2
    assert b"array" not in two


def test_repeat_matches_in_either_form():
    provider = altcraft()
    ask_xml(provider, "activate/", "<id>82</id><run_now>true</run_now>", **{"Request-ID": "one"})
    assert ask(provider, "activate/", {"Request-ID": "one"}, run_now=True).headers["Duplicate-Key"] == "one"
    assert provider.launches == {82: 1}


def test_missing_defusedxml_affects_only_xml(monkeypatch):
    monkeypatch.setitem(sys.modules, "defusedxml", None)
    provider = altcraft()
    assert ask(provider, "get_status").status == 200
    with pytest.raises(ModuleNotFoundError, match=r"dispatchkit\[xml\]"):
        ask_xml(provider, "get_status", "<id>82</id>")
