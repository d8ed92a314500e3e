"""Addresses of ledgers: what they are, and that no wrong one is shown or becomes a file."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import ssl
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatchkit import Ledger
from dispatchkit.cli.input.ledger_ref import LedgerRef
from dispatchkit.cli.invocation import PlanOptions
from dispatchkit.cli.options import ResumeOptions, RunOptions
from dispatchkit.ledger.address import Address
from dispatchkit.ledger.dsn import KEYWORDS
from dispatchkit.ledger.postgres.connect import connect
from dispatchkit.ledger.postgres.driver_settings import DriverSettings
from dispatchkit.workers import launch_chunk, plan_chunks
from tests.cli.conftest import Played, run
from tests.postgres import Server
from tests.workers.conftest import DatabaseProxy

SECRET = "hunter2"
WRONG = {
    "another database": f"mysql://app:{SECRET}@db/x",
    "sqlalchemy": f"postgresql+asyncpg://app:{SECRET}@db/x",
    "sqlite": f"sqlite:///{SECRET}.db",
    "web": f"https://app:{SECRET}@db/x",
    "typing error": f"postgre://app:{SECRET}@db/x",
    "one slash": f"postgresql:/app:{SECRET}@db/x",
    "no slash": f"postgres:app:{SECRET}@db/x",
    "upper case": f"PostgreSQL://app:{SECRET}@db/x",
    "no colon": f"postgresql//app:{SECRET}@db/x",
    "no scheme": f"app_user:{SECRET}@db/x",
    "leading blank": f" postgresql://app:{SECRET}@db/x",
    "quotes": f"'postgresql://app:{SECRET}@db/x'",
    "bare percent": f"postgresql://app:50%{SECRET}@db/x",
    "bare at": f"postgresql://app:{SECRET}@{SECRET}@db/x",
    "bare slash": f"postgresql://app:{SECRET}/{SECRET}@db/x",
    "ado": f"Host=db;Database=x;Password={SECRET}",
    "keywords of another": f"server=db uid=app pwd={SECRET}",
    "unknown keyword": f"host=db dbname=x passwort={SECRET}",
    "unquoted blank": f"host=db password=a {SECRET}",
    "refused parameter": f"postgresql://app:{SECRET}@db/x?require_auth={SECRET}",
    "unknown parameter": f"postgresql://app@db/x?passwort={SECRET}",
    "wrong port": f"postgresql://app:{SECRET}@db:{SECRET}/x",
    "opaque": f"mysql:{SECRET}",
    "file URI": f"file:{SECRET}?mode=rw",
    "memory": f":memory:{SECRET}",
}
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "list": lambda where: ["ledger", "list", where],
    "show": lambda where: ["ledger", "show", where, "friday"],
    "failures": lambda where: ["ledger", "failures", where, "friday"],
    "export": lambda where: ["ledger", "export", where, "friday", "--json"],
    "lift-pause": lambda where: ["ledger", "lift-pause", where, "--yes"],
    "init": lambda where: ["ledger", "init", where],
    "init --sql": lambda where: ["ledger", "init", where, "--sql"],
    "resume": lambda where: ["resume", where, "--run", "friday", "--yes"],
    "stop-run": lambda where: ["stop-run", where, "friday"],
    "plan": lambda where: ["plan", "--ledger", where, "--run", "friday", "direct", "start", "1-3", "--yes"],
    "worker": lambda where: ["worker", "--ledger", where, "--url", "direct=http://127.0.0.1:9"],
    "start": lambda where: ["direct", "start", "1-3", "--ledger", where, "--run", "friday", "--yes"],
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("named", [True, False], ids=["named", "environment"])
def test_wrong_address_is_refused_unseen(
    wrong: str,
    named: bool,
    played: Played,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)
    for name, words_of in COMMANDS.items():
        words = words_of(wrong)
        if not named:
            monkeypatch.setenv("DISPATCHKIT_LEDGER", wrong)
            place = words.index(wrong)
            option = words[place - 1] == "--ledger"
            words = words[: place - option] + words[place + 1 :]
        if "start" in words:
            words += ["--base-url", played.url]
        result = run(*words)
        assert result.code == 2, (name, result)
        assert result.out == "", (name, result)
        assert result.err.count("\n") == 1, (name, result)
        assert SECRET not in result.err, (name, result)
        assert list(tmp_path.iterdir()) == [], name
    assert played.sandbox.requests == 0
    assert not [record for record in caplog.records if SECRET in f"{record.getMessage()} {vars(record)}"]


@pytest.mark.parametrize(
    "words",
    [
        ["worker", "--ledger", "x", "{}"],
        ["{}"],
        ["ledger", "{}"],
        ["ledger", "list", "--{}"],
        ["plan", "--ledger", "x", "--run", "r", "{}"],
        ["plan", "--ledger", "x", "--run", "r", "direct", "{}"],
        ["direct", "list", "{}"],
        ["worker", "--chunks", "{}"],
        ["direct", "start", "1", "--limit={}"],
    ],
    ids=" ".join,
)
def test_misplaced_address_is_not_shown(words: list[str]) -> None:
    for where in (f"postgresql://app:{SECRET}@db/x", f"app:{SECRET}@db/x", f"password={SECRET}"):
        result = run(*(word.format(where) for word in words))
        assert result.code == 2, result
        assert SECRET not in result.out + result.err, result


def test_masked_address_leaves_message_readable() -> None:
    result = run(f"postgresql://app:{SECRET}@db/x")
    assert "Error: There is no command '***'. The commands are: direct," in result.err, result


def test_options_hide_passwords() -> None:
    where = f"postgresql://app:{SECRET}@db/x"
    plan = PlanOptions(ledger=where, run="r", from_=None, chunk_size=1, rate=None, concurrency=None)
    options = (RunOptions(ledger=where, proxy=where), ResumeOptions(where=[where]), plan)
    for shown in (*options, LedgerRef(where, "friday")):
        assert SECRET not in repr(shown)


def test_authorities_of_system_are_trusted() -> None:
    settings = DriverSettings(Address.of("postgresql://db/x?sslrootcert=system"))
    context = settings.for_asyncpg(("db", 5432))["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    weak = Address.of("postgresql://db/x?sslrootcert=system&sslmode=require")
    with pytest.raises(ValueError, match="sslrootcert=system needs sslmode=verify-full"):
        DriverSettings(weak)


def shows_no_secret(error: BaseException) -> None:
    chain = [traceback.TracebackException.from_exception(error, capture_locals=True)]
    while chain:
        one = chain.pop()
        assert SECRET not in "".join(one.format_exception_only())
        for frame in one.stack:
            if "/tests/" not in frame.filename:
                assert SECRET not in str(frame.locals), frame
        chain += [linked for linked in (one.__cause__, one.__context__) if linked is not None]


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
async def test_library_shows_no_wrong_address(wrong: str) -> None:
    client: Any = None
    for where in (wrong, Path(wrong)) if "//" not in wrong else (wrong,):
        with pytest.raises(ValueError, match="not shown") as refused:
            Ledger(where)
        shows_no_secret(refused.value)
    with pytest.raises(ValueError, match="not shown") as refused:
        await launch_chunk(wrong, "friday", 0)
    shows_no_secret(refused.value)
    with pytest.raises(ValueError, match="not shown") as refused:
        await plan_chunks(wrong, "friday", client, [])
    shows_no_secret(refused.value)


@pytest.mark.second_stage
@pytest.mark.parametrize("password", [SECRET, f"{SECRET}%25%40%3A%2F%3F%23%20"])
async def test_failed_connection_shows_no_password(password: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    where = f"postgresql://app:{password}@127.0.0.1:1/x?sslmode=disable"
    with pytest.raises(Exception, match="cannot be reached") as failed:
        async with Ledger(where) as ledger:
            await ledger.runs()
    shows_no_secret(failed.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "where",
    [
        "launch.db",
        "/data/a:b@c.db",
        "./postgresql:x",
        "C:\\launch.db",
        "D:/data/launch.db",
        "a=b.db",
        "two words.db",
        "data/host=db",
        "50%.db",
    ],
)
def test_rest_are_files(where: str) -> None:
    address = Address.of(where)
    address.check()
    assert (address.is_database, address.file, str(address)) == (False, where, where)


@pytest.mark.parametrize(
    ("where", "says", "parameters"),
    [
        ("postgresql://", "postgresql://", {}),
        (
            f"postgres://app:{SECRET}@one:1,two/x?sslmode=require",
            "postgres://app:***@one:1,two/x?sslmode=require",
            {"user": "app", "password": SECRET, "host": "one,two", "port": "1,", "dbname": "x", "sslmode": "require"},
        ),
        (
            f"postgresql://app:{SECRET}%25%40%3a%2f:#@[::1]:54/a%20b",
            "postgresql://app:***@[::1]:54/a%20b",
            {"user": "app", "password": f"{SECRET}%@:/:#", "host": "::1", "port": "54", "dbname": "a b"},
        ),
        (
            f"postgresql:///x?host=/run/pg&password={SECRET}&sslpassword={SECRET}&ssl=true",
            "postgresql:///x?host=/run/pg&password=***&sslpassword=***&ssl=true",
            {"host": "/run/pg", "dbname": "x", "password": SECRET, "sslpassword": SECRET, "sslmode": "require"},
        ),
        (
            f"host = db dbname=x password='{SECRET} \\' \\\\ %@:'  user=app",
            "host = db dbname=x password=***  user=app",
            {"host": "db", "dbname": "x", "password": f"{SECRET} ' \\ %@:", "user": "app"},
        ),
        (f"password={SECRET}\\ x dbname=''", "password=*** dbname=''", {"password": f"{SECRET} x"}),
        ("dbname=x", "dbname=x", {"dbname": "x"}),
        (
            "postgresql://db/x?channel_binding=prefer",
            "postgresql://db/x?channel_binding=prefer",
            {"host": "db", "dbname": "x"},
        ),
    ],
)
def test_database_is_read_and_masked(where: str, says: str, parameters: dict[str, str]) -> None:
    address = Address.of(where)
    address.check()
    assert address.parameters == parameters
    assert str(address) == says
    settings = DriverSettings(address)
    for shown in (address, address.parameters, settings, settings.for_asyncpg(settings.hosts[0]), settings.for_libpq()):
        assert SECRET not in repr(shown)
    for held in (address, settings):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(held)


@pytest.mark.parametrize("name", sorted(KEYWORDS))
def test_parameters_are_supported_or_refused(name: str, tmp_path: Path) -> None:
    """No parameter reaches the server as a setting that it does not know."""
    file = tmp_path / "file"
    file.write_text("[s]\nuser=service\n")
    values = {
        "sslmode": "disable", "sslnegotiation": "postgres", "target_session_attrs": "any", "service": "s",
        "servicefile": str(file), "schema": "s", "gsslib": "gssapi", "ssl_min_protocol_version": "TLSv1.2",
        "ssl_max_protocol_version": "TLSv1.3", "client_encoding": "UTF8", "channel_binding": "disable",
        "gssencmode": "disable", "load_balance_hosts": "disable", "min_protocol_version": "3.0", "replication": "off",
        "max_protocol_version": "3.0", "sslcertmode": "allow", "sslcompression": "0", "sslsni": "1",
        "gssdelegation": "0",
    }  # fmt: skip
    integers = {"port", "connect_timeout", "tcp_user_timeout"} | {each for each in KEYWORDS if each.startswith("keep")}
    value = values.get(name, "7" if name in integers else str(file) if name.startswith("ssl") else "x")
    extra = f"&servicefile={file}" if name == "service" else ""
    address = Address.of(f"postgresql://db?{name}={value}{extra}")
    try:
        address.check()
    except ValueError as error:
        assert f"the parameter {name} is not supported" in str(error)  # noqa: PT017
        return
    settings = DriverSettings(address)
    asyncpg = settings.for_asyncpg(settings.hosts[0])
    server: Any = asyncpg["server_settings"]
    assert set(server) <= {"application_name", "timezone", "options"}
    assert json.dumps(server)


def test_service_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "services"
    file.write_text(
        f"[other]\nhost=no\n# x\n[launches]\nhost=one,two\nport=1\npassword={SECRET}\nuser=service\n[z]\nhost=no\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    settings = DriverSettings(Address.of("postgresql://app@/x?service=launches"))
    assert settings.hosts == [("one", 1), ("two", 1)]
    given = settings.for_libpq()
    assert (given["user"], given["password"], given["dbname"]) == ("app", SECRET, "x")
    with pytest.raises(ValueError, match="the service 'none', which no service file defines"):
        DriverSettings(Address.of("service=none"))
    file.write_text("[launches]\nhostaddr=1\n")
    with pytest.raises(ValueError, match=r"the service 'launches', .* cannot be used .* hostaddr is not supported"):
        DriverSettings(Address.of("service=launches"))


def test_environment_completes_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGHOST": "one,two", "PGPORT": "1,2", "PGCONNECT_TIMEOUT": "1", "PGAPPNAME": "x"}.items():
        monkeypatch.setenv(name, value)
    settings = DriverSettings(Address.of("postgresql:///x"))
    assert settings.hosts == [("one", 1), ("two", 2)]
    assert settings.connect_timeout == 2
    assert settings.for_libpq()["application_name"] == "x"
    settings.prefer(("two", 2))
    assert settings.hosts == [("two", 2), ("one", 1)]
    assert DriverSettings(Address.of("postgresql://three:3/x")).hosts == [("three", 3)]


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PGHOSTADDR", "127.0.0.1", "hostaddr is not supported"),
        ("PGREQUIREAUTH", "scram-sha-256", "require_auth is not supported"),
        ("PGCHANNELBINDING", "require", "channel_binding, only disable or prefer"),
        ("PGTARGETSESSIONATTRS", "standby", "target_session_attrs, only any or primary or read-write"),
        ("PGSSLROOTCERT", "/no/such", "names a file as sslrootcert that is not there"),
    ],
)
def test_half_supported_variable_is_refused(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = Address.of("postgresql://db/x")
    DriverSettings(address)
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=says):
        DriverSettings(address)


async def test_keepalives_reach_the_socket(postgres: Server, dsn: str) -> None:
    settings = DriverSettings(Address.of("host=db keepalives_idle=7 keepalives_count=3 tcp_user_timeout=9000"))
    assert set(settings.socket_options()) == {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9000),
    }
    assert DriverSettings(Address.of("host=db keepalives=0")).socket_options() == []
    with DatabaseProxy(dsn) as proxy:
        connection: Any = await connect(DriverSettings(Address.of(f"{proxy.dsn}?keepalives_idle=7")))
        made = connection._transport.get_extra_info("socket")
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        await connection.close()


def test_mistyped_parameter_is_named_right() -> None:
    result = run("ledger", "list", "postgresql://h/d?sslmod=require&qx7=1")
    assert result.code == 2
    assert "did you mean sslmode?" in result.err
    assert "qx7" not in result.err
