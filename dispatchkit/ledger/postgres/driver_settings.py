"""What both drivers are given: every parameter of an address, with what a service file and the environment add."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from dispatchkit.ledger.address import Address
from dispatchkit.ledger.dsn import TLS, DsnError, Parameters, check_parameters, check_schema

__all__ = ["DEFAULT_SCHEMA", "DriverSettings"]

DEFAULT_SCHEMA = "dispatchkit"
_CONNECT_TIMEOUT = 10.0
"""Seconds to connect to one host."""
_SOCKET_FOLDERS = ("/run/postgresql", "/var/run/postgresql", "/tmp", "/private/tmp")  # noqa: S108 - libpq's own
_ENVIRONMENT = {
    "application_name": "PGAPPNAME",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "gssencmode": "PGGSSENCMODE",
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "options": "PGOPTIONS",
    "port": "PGPORT",
    "require_auth": "PGREQUIREAUTH",
    "requirepeer": "PGREQUIREPEER",
    "service": "PGSERVICE",
    "servicefile": "PGSERVICEFILE",
    "ssl_max_protocol_version": "PGSSLMAXPROTOCOLVERSION",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "sslcert": "PGSSLCERT",
    "sslcertmode": "PGSSLCERTMODE",
    "sslcrl": "PGSSLCRL",
    "sslcrldir": "PGSSLCRLDIR",
    "sslkey": "PGSSLKEY",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "sslsni": "PGSSLSNI",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
"""Variables of libpq that are checked, and given to both drivers. The others, such as PGUSER, both of them read."""
_OUR_OWN = frozenset({"schema", "service", "servicefile", "target_session_attrs", "fallback_application_name"})


class DriverSettings:
    """The settings of a connection. Its repr shows no password.

    The hosts are tried in order, each for ``connect_timeout``, until one of them takes writes. The first may be a
    standby, or a machine that is gone. The host that was the primary last is tried first.

    Args:
        address: The address of a database.
        schema: The schema of the tables; None takes that of the address.

    Raises:
        ValueError: The address is not one of a database, or names another schema. Or its service is not defined, or
            defines something that is not supported.
    """

    def __init__(self, address: Address, *, schema: str | None = None) -> None:
        address.check()
        if address.parameters is None:
            raise ValueError("the address of a database must begin with 'postgresql://' or be 'host=... dbname=...'")
        parameters = _with_schema(address.parameters, schema)
        given = Parameters(_from_environment() | parameters)
        source = "the environment (PG...)"
        if "service" in given:
            source = f"the service {given['service']!r}, or {source},"
            # An address goes before a service, and a service before the environment.
            defined = _service(given["service"], given.get("servicefile"))
            given = Parameters(_from_environment() | defined | parameters)
        try:
            given = check_parameters(given)
        except DsnError as error:
            message = f"{source} cannot be used for a ledger: {error}"
            raise ValueError(message) from None
        _check_files(given)
        self.schema = given.get("schema", DEFAULT_SCHEMA)
        """The schema of the ledger's tables."""
        self.is_pooled = False
        """Whether a pooler was seen between this process and the database."""
        given.setdefault("application_name", given.get("fallback_application_name", "dispatchkit"))
        self._parameters = Parameters({name: value for name, value in given.items() if name not in _OUR_OWN})
        self._hosts = _hosts(given.get("host", ""), given.get("port", ""))
        self._first = 0

    @property
    def hosts(self) -> Sequence[tuple[str, int]]:
        """The hosts, or folders of Unix sockets, and their ports, in the order in which to try them."""
        return [*self._hosts[self._first :], *self._hosts[: self._first]]

    def prefer(self, host: tuple[str, int]) -> None:
        """Try this host first from now on."""
        self._first = self._hosts.index(host)

    @property
    def connect_timeout(self) -> float:
        """Seconds to connect to one host."""
        seconds = int(self._parameters.get("connect_timeout", 0))
        return float(max(2, seconds)) if seconds > 0 else _CONNECT_TIMEOUT  # libpq's least is 2 too

    def for_asyncpg(self, host: tuple[str, int]) -> dict[str, object]:
        """The keywords of ``asyncpg.connect`` for one host."""
        given = self._parameters
        settings = _Hidden(host=host[0], port=host[1], target_session_attrs="any")  # `connect` looks itself
        for name in ("user", "password", "passfile", "krbsrvname", "gsslib"):
            if name in given:
                settings[name] = given[name]
        if "dbname" in given:
            settings["database"] = given["dbname"]
        tls = Parameters({name: value for name, value in given.items() if name in TLS})
        if tls.get("sslrootcert") == "system":
            settings["ssl"] = _system_tls(tls)
        elif tls:
            # asyncpg reads these from a URL alone.
            settings["dsn"] = "postgresql://?" + "&".join(f"{name}={quote(tls[name], safe='')}" for name in sorted(tls))
        server = {"application_name": given["application_name"], "timezone": "UTC"}
        if "options" in given:
            server["options"] = given["options"]
        settings["server_settings"] = server
        return settings

    def for_libpq(self) -> Parameters:
        """The keywords of ``psycopg.connect``."""
        hosts = self.hosts
        return Parameters(
            self._parameters,
            host=",".join(host for host, _ in hosts),
            port=",".join(str(port) for _, port in hosts),
            connect_timeout=f"{self.connect_timeout:.0f}",
            target_session_attrs="read-write",
            client_encoding="utf8",
        )

    def socket_options(self) -> list[tuple[int, int, int]]:
        """What libpq's keepalive parameters mean for a TCP socket, as arguments of ``setsockopt``."""
        options = list[tuple[int, int, int]]()
        if self._parameters.get("keepalives", "1") != "0":
            options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
        for name, constant in (
            ("keepalives_idle", "TCP_KEEPIDLE"),
            ("keepalives_interval", "TCP_KEEPINTVL"),
            ("keepalives_count", "TCP_KEEPCNT"),
            ("tcp_user_timeout", "TCP_USER_TIMEOUT"),
        ):
            value, number = int(self._parameters.get(name, 0)), getattr(socket, constant, None)
            if value > 0 and number is not None:
                options.append((socket.IPPROTO_TCP, number, value))
        return options

    def __repr__(self) -> str:
        hosts: Sequence[tuple[str, int]] = getattr(self, "_hosts", ())  # a traceback may show it half built
        return f"DriverSettings({', '.join(f'{host}:{port}' for host, port in hosts)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an address is not pickled, as it may hold a password: make the Ledger where it is used")


def _with_schema(parameters: Parameters, schema: str | None) -> Parameters:
    if schema is None:
        return parameters
    if not isinstance(schema, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers without a type checker
        raise TypeError(f"schema= must be a string, not {type(schema).__name__}")
    if parameters.get("schema", schema) != schema:
        raise ValueError(f"schema= is {schema!r}, but the ledger's address names {parameters['schema']!r}")
    try:
        check_schema(schema)
        return Parameters(parameters, schema=schema)
    except DsnError as error:
        message = str(error)
    raise ValueError(message)


def _check_files(parameters: Parameters) -> None:
    """Without them, each try to connect would look like a database that is away."""
    if parameters.get("sslrootcert") == "system" and parameters.get("sslmode", "verify-full") != "verify-full":
        raise ValueError("sslrootcert=system needs sslmode=verify-full")
    for name in ("sslcert", "sslcrl", "sslkey", "sslrootcert"):
        file = parameters.get(name)
        if file is not None and (name, file) != ("sslrootcert", "system") and not Path(file).is_file():
            raise ValueError(f"the ledger's address names a file as {name} that is not there: {file}")


def _from_environment() -> dict[str, str]:
    return {name: value for name, variable in _ENVIRONMENT.items() if (value := os.environ.get(variable))}


class _Hidden(dict[str, object]):
    def __repr__(self) -> str:
        return f"{{{', '.join(sorted(self))}}}"


def _hosts(hosts: str, ports: str) -> list[tuple[str, int]]:
    numbers = [int(port or 5432) for port in ports.split(",")]
    names = hosts.split(",")
    if len(numbers) == 1:
        numbers *= len(names)
    return [(name or _default_host(port), port) for name, port in zip(names, numbers, strict=True)]


def _default_host(port: int) -> str:
    """The folder of this machine's socket. The drivers look into different ones."""
    if sys.platform != "win32":
        for folder in _SOCKET_FOLDERS:
            if Path(folder, f".s.PGSQL.{port}").exists():
                return folder
    return "localhost"


def _system_tls(tls: Parameters) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if "sslcert" in tls:
        context.load_cert_chain(tls["sslcert"], tls.get("sslkey"), lambda: tls.get("sslpassword", ""))
    return context


def _service(name: str, file: str | None) -> Parameters:
    """The section of a service file, as libpq reads it.

    Raises:
        ValueError: There is no such section.
    """
    home = Path.home() / ".pg_service.conf" if file is None else Path(file)
    folder = os.environ.get("PGSYSCONFDIR")
    for path in (home, *([Path(folder) / "pg_service.conf"] if folder else [])):
        if not path.is_file():  # a pipe or a device may have no end
            continue
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        found: Parameters | None = None
        for line in map(str.strip, lines):
            if line.startswith("["):
                if found is not None:
                    break
                found = Parameters() if line == f"[{name}]" else None
            elif found is not None and line and not line.startswith("#"):
                key, _, value = line.partition("=")
                found[key.strip()] = value.strip()
        if found is not None:
            return found
    raise ValueError(f"the ledger's address names the service {name!r}, which no service file defines")
