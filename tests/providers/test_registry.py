"""The registry of providers: what it knows, what it refuses, and that it loads nothing early."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from dispatchkit import AltcraftClient, DirectClient, LedgerError, providers
from dispatchkit.cli.run.worker import parse_urls
from dispatchkit.core.command import JSON_FIELD, Command, Request, Response
from dispatchkit.ledger import converter
from dispatchkit.ledger.codec import decode, encode
from dispatchkit.provider import Client, Provider, Secret, register
from dispatchkit.providers import (
    _may_be_named,
    command_lines,
    connect_run,
    find_provider,
    parse_settings,
    provider_of,
)
from tests.providers.example_provider import SMS, SmsClient, StartSms


@pytest.fixture(autouse=True)
def no_other_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "_registered", {})
    set_entry_points(monkeypatch)
    converter._codec_of.cache_clear()
    converter._codec_reading.cache_clear()


def set_entry_points(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    found = [EntryPoint(name, value, providers.ENTRY_POINTS) for name, value in points]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda *, group: found)
    monkeypatch.setattr(providers, "_may_be_named", lambda: True)
    providers._installed.cache_clear()
    providers._find_installed.cache_clear()


@attrs.frozen
class Stored:
    settings: str
    account: str | None = None
    fingerprint: str = ""


@pytest.mark.parametrize(
    "statement",
    [
        "import dispatchkit.providers",
        "from dispatchkit.providers import command_lines; command_lines()",
        "from dispatchkit.providers import find_provider; find_provider('altcraft').noun",
    ],
)
def test_registry_loads_no_client(statement: str) -> None:
    heavy = "[name for name in ('aiohttp', 'dispatchkit.direct.client', 'dispatchkit.altcraft.commands') "
    script = f"{statement}\nimport sys\nprint({heavy}if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"


def test_codec_loads_one_provider() -> None:
    script = (
        "from dispatchkit.ledger.codec import decode\nimport sys\n"
        """decode('{"type":"direct.start","version":1,"dispatch_id":7}')\n"""
        "print('dispatchkit.altcraft.commands' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False\n"


def test_command_lines_are_references(monkeypatch: pytest.MonkeyPatch) -> None:
    set_entry_points(monkeypatch, ("sms", "tests.providers.example_provider:SMS"))
    assert command_lines() == {  # sms has none
        "direct": "dispatchkit.cli.commands.direct:app",
        "altcraft": "dispatchkit.cli.commands.altcraft:app",
    }


@pytest.mark.parametrize(
    "points", [[("fax", "no_such_module:FAX")], [("direct", "one:PROVIDER")]], ids=["broken", "duplicate"]
)
def test_broken_package_leaves_others_usable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, points: list[tuple[str, str]]
) -> None:
    set_entry_points(monkeypatch, *points)
    assert [*command_lines()] == ["direct", "altcraft"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    ("place", "text", "may"),
    [
        ("a-1.dist-info/entry_points.txt", "[dispatchkit.providers]\na = b:C\n", True),
        ("a.egg-info/entry_points.txt", "[dispatchkit.providers]\na = b:C\n", True),
        ("a-1.dist-info/entry_points.txt", "[console_scripts]\na = b:c\n", False),
        ("a-1.dist-info/METADATA", "Name: a\n", False),
    ],
)
def test_files_tell_whether_to_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str, text: str, may: bool
) -> None:
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_text(text)
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "nowhere")])
    assert _may_be_named() is may


def test_archives_and_finders_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    archive = tmp_path / "packages.zip"
    archive.write_bytes(b"")
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    monkeypatch.setattr(sys, "path", [str(archive)])
    assert _may_be_named()
    monkeypatch.setattr(sys, "path", [])
    assert not _may_be_named()
    monkeypatch.setattr(sys, "meta_path", [PathFinder, SimpleNamespace(find_distributions=list)])
    assert _may_be_named()


CLIENTS: list[tuple[Callable[[], Client[Any]], str]] = [
    (lambda: DirectClient("t", base_url="http://127.0.0.1:1"), "direct"),
    (lambda: AltcraftClient("http://127.0.0.1:1", "t"), "altcraft"),
    (lambda: AltcraftClient("http://127.0.0.1:1", "t", wire="xml", deduplicates=True), "altcraft"),
    (lambda: SmsClient("t", base_url="http://127.0.0.1:1"), "sms"),
]


@pytest.mark.parametrize(("client", "name"), CLIENTS, ids=["direct", "altcraft", "altcraft-xml", "sms"])
def test_stored_settings_make_same_client(client: Callable[[], Client[Any]], name: str) -> None:
    register(SMS)
    planned = client()
    again = connect_run(Stored(json.dumps(planned._settings())), token="t")
    assert type(again) is type(planned)
    assert again._settings() == planned._settings()
    assert (again.provider, again._account_key()) == (name, planned._account_key())


@pytest.mark.parametrize(
    ("token", "given", "account"),
    [("t", None, "shop"), ("other", None, None), ("other", "mine", "mine"), ("t", "mine", "mine")],
)
def test_account_name_needs_its_token(token: str, given: str | None, account: str | None) -> None:
    planned = DirectClient("t", account="shop")
    run = Stored(json.dumps(planned._settings()), "shop", planned._token_fingerprint())
    assert connect_run(run, token=token, account=given)._run_settings().account == account


def test_options_reach_the_client() -> None:
    run = Stored(json.dumps(DirectClient("t")._settings()))
    client = connect_run(run, token="t", base_url="http://127.0.0.1:1", attempt_timeout=5.0)
    assert client._settings()["base_url"] == "http://127.0.0.1:1"
    assert client._run_settings().attempt_timeout == 5.0


ALTCRAFT = {"provider": "altcraft", "base_url": "https://example.com", "wire": "json", "deduplicates": "no"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({**ALTCRAFT, "wire": "morse"}, "provider 'altcraft': wire."),
        ({**ALTCRAFT, "deduplicates": "maybe"}, "provider 'altcraft': deduplicates."),
        ({**ALTCRAFT, "volume": "11"}, "provider 'altcraft': volume."),
        ({"provider": "altcraft", "wire": "json"}, "provider 'altcraft': base_url, deduplicates."),
        ({"base_url": "https://example.com"}, "name no provider"),
        ({**ALTCRAFT, "provider": "fax"}, "the provider 'fax', which is not installed: install its package"),
        ({**ALTCRAFT, "wire": 1}, "cannot be read"),
        ([], "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_damaged_settings_are_refused(settings: object, says: str) -> None:
    with pytest.raises(LedgerError) as raised:
        connect_run(Stored("{" if settings is None else json.dumps(settings)), token="t")
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_nested_settings_are_refused() -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        parse_settings("[" * 100_000)


def test_unknown_provider_is_named() -> None:
    with pytest.raises(LedgerError, match="'sms', which is not installed: install its package"):
        decode('{"type":"sms.start","version":1,"target":1}')
    with pytest.raises(TypeError, match="known providers, not StartSms; register the provider 'sms' first"):
        encode(StartSms(1))
    with pytest.raises(ValueError, match="--url names the provider 'sms', which is not installed"):
        parse_urls(["sms=http://127.0.0.1:1"])


def test_same_entry_registers_twice() -> None:
    register(SMS)
    register(SMS)
    assert find_provider("sms") is SMS


def other(name: str) -> Provider[Secret]:
    return Provider(name=name, client=SmsClient, commands={"start": StartSms}, token_variable="T")


@pytest.mark.parametrize("name", ["sms", "direct", "installed"])
def test_duplicate_name_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    set_entry_points(monkeypatch, ("installed", "tests.providers.example_provider:SMS"))
    register(SMS)
    with pytest.raises(ValueError, match=f"there is a provider '{name}' already"):
        register(other(name))


def test_duplicate_packages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "tests.providers.example_provider:SMS"
    set_entry_points(monkeypatch, ("fax", "one:FAX"), ("sms", place), ("fax", "two:FAX"), ("direct", "one:DIRECT"))
    for _ in range(2):
        with pytest.raises(ValueError, match="two packages bring a provider 'fax': one:FAX and two:FAX; remove one"):
            find_provider("fax")
    with pytest.raises(ValueError, match="there is a provider 'fax' already"):
        register(other("fax"))
    assert find_provider("sms") is SMS
    assert find_provider("mail") is None
    assert provider_of({"provider": "direct"}).is_built_in


def test_double_name_is_left_out(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    set_entry_points(monkeypatch, ("fax", "one:FAX"), ("fax", "two:FAX"), ("direct", "one:DIRECT"))
    assert {"direct", "altcraft"} <= {*command_lines()}
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "two packages bring a provider 'direct'",
        "two packages bring a provider 'fax'",
    ]


def test_same_package_found_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    set_entry_points(monkeypatch, *[("sms", "tests.providers.example_provider:SMS")] * 2)
    assert find_provider("sms") is SMS


def test_broken_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_entry_points(monkeypatch, ("fax", "no_such_module:FAX"), ("mail", "tests.providers.example_provider:SMS"))
    with pytest.raises(ImportError, match="the provider 'fax' cannot be loaded from no_such_module:FAX"):
        find_provider("fax")
    with pytest.raises(ValueError, match="must be a Provider of the name 'mail'"):
        find_provider("mail")


@pytest.mark.parametrize("name", ["", "Sms", "a.b", "1st", "x" * 41])
def test_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be lower-case letters"):
        other(name)


def test_provider_without_commands_is_refused() -> None:
    with pytest.raises(ValueError, match="has no commands"):
        Provider(name="sms", client=SmsClient, commands={}, token_variable="T")


def test_foreign_command_is_refused() -> None:
    register(other("fax"))
    with pytest.raises(TypeError, match=r"StartSms\.provider must be 'fax', not 'sms'"):
        decode('{"type":"fax.start","version":1,"target":1}')


def test_client_needs_a_provider() -> None:
    class Nameless(Command[Secret, str]):
        pass

    class NamelessClient(Client[Secret]):
        command_type = Nameless

    with pytest.raises(TypeError, match=r"Nameless\.provider must be the name of the provider"):
        NamelessClient("http://127.0.0.1:1", Secret("t", environment="T"), Secret("t", environment="T"))


@attrs.frozen
class Nested:
    text: str
    parts: Any = attrs.field(default=None, metadata=JSON_FIELD)


@attrs.frozen
class FaxCommand(Command[Secret, str]):
    provider = "fax"

    def request(self, wire: Secret, request_id: str | None) -> Request:
        raise NotImplementedError

    def result(self, response: Response, wire: Secret) -> str:
        raise NotImplementedError


@attrs.frozen
class SendFax(FaxCommand):
    number: int
    pages: bytes
    at: datetime
    cover: Nested | None = None
    variables: Any = attrs.field(default=None, metadata=JSON_FIELD)


@attrs.frozen
class TypedFax(FaxCommand):
    type: str


def fax(**commands: type[FaxCommand]) -> Provider[Secret]:
    return Provider(name="fax", client=SmsClient, commands=commands, token_variable="FAX_TOKEN")


def test_all_fields_round_trip() -> None:
    register(fax(send=SendFax))
    command = SendFax(7, b"\xff", datetime(2026, 1, 1, tzinfo=UTC), Nested("x", {"b": 1, "a": 2}), {"z": 1, "y": [2]})
    text = encode(command)[1]
    assert decode(text) == command
    assert list(decode(text).variables) == ["z", "y"]  # type: ignore[attr-defined]
    turned = attrs.evolve(command, variables={"y": [2], "z": 1})
    assert encode(turned)[0] == encode(command)[0]
    with pytest.raises(LedgerError, match="SendFax that cannot be read"):
        decode(text.replace('"text":"x"', '"text":"x","more":1'))


def test_ledger_names_are_reserved() -> None:
    register(fax(typed=TypedFax))
    with pytest.raises(TypeError, match=r"TypedFax\.type: a ledger has a field of this name"):
        encode(TypedFax("x"))


def test_newer_package_is_named() -> None:
    register(SMS)
    with pytest.raises(LedgerError, match=r"a newer release of the package of the prov.*'sms\.stop', version 1"):
        decode('{"type":"sms.stop","version":1,"target":1}')


@pytest.mark.parametrize(
    ("given", "variable", "url"),
    [("https://a", "https://b", "https://a"), (None, "https://b", "https://b"), (None, "", "https://direct.i-dgtl.ru")],
)
def test_own_url_has_an_order(monkeypatch: pytest.MonkeyPatch, given: str | None, variable: str, url: str) -> None:
    monkeypatch.setenv("DISPATCHKIT_DIRECT_URL", variable)
    provider = find_provider("direct")
    assert provider is not None
    assert provider.own_url(given) == url


def test_missing_host_is_told() -> None:
    with pytest.raises(ValueError, match="no host for the provider 'altcraft': pass its URL, or set DISPATCHKIT_ALTCR"):
        provider_of({"provider": "altcraft"}).own_url()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["https://example.com/?a=b"], "must be PROVIDER=URL"),
        (["direct"], "must be PROVIDER=URL"),
        (["direct="], "must be PROVIDER=URL"),
        (["direct=https://a", "direct=https://b"], "names the provider 'direct' twice"),
    ],
)
def test_invalid_urls_are_refused(words: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_urls(words)


def test_urls_are_read() -> None:
    assert parse_urls(["direct=https://a", "altcraft=https://b/?c=d"]) == {
        "direct": "https://a",
        "altcraft": "https://b/?c=d",
    }
