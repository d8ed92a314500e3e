"""The address of a PostgreSQL database: read once, then handed to both drivers as the same parameters.

asyncpg sends an unknown parameter to the server, and libpq reads an address by its own rules. So this module parses
both forms of an address, as libpq documents them. Each parameter is supported by both drivers or refused by name. See
https://www.postgresql.org/docs/current/libpq-connect.html
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from urllib.parse import unquote_to_bytes

__all__ = [
    "KEYWORDS",
    "TLS",
    "DsnError",
    "Parameters",
    "check_parameters",
    "check_schema",
    "create_schema_sql",
    "parse_keywords",
    "parse_url",
]


class DsnError(Exception):
    """What is wrong with an address. Its text never quotes the address."""


class Parameters(dict[str, str]):
    """Parameters by their libpq names. The repr shows names alone, so a traceback's locals hold no password."""

    def __repr__(self) -> str:
        return f"Parameters({', '.join(sorted(self))})"


TLS = frozenset({
    "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
})  # fmt: skip
_SUPPORTED = TLS | {
    "application_name", "connect_timeout", "dbname", "fallback_application_name", "gsslib", "host", "keepalives",
    "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname", "options", "passfile", "password",
    "port", "schema", "service", "servicefile", "target_session_attrs", "tcp_user_timeout", "user",
}  # fmt: skip
"""``schema`` is our own: the schema of the ledger's tables."""
_ACCEPTED_VALUES = {
    "channel_binding": {"prefer", "disable"},
    "client_encoding": {"utf8", "utf-8", "unicode", "auto"},
    "gssdelegation": {"0"},
    "gssencmode": {"prefer", "disable"},
    "load_balance_hosts": {"disable"},
    "max_protocol_version": {"3.0", "latest"},
    "min_protocol_version": {"3.0"},
    "replication": {"false", "off", "no", "0"},
    "sslcertmode": {"allow"},
    "sslcompression": {"0"},
    "sslsni": {"1"},
    "target_session_attrs": {"any", "primary", "read-write"},
}
"""Parameters of which both drivers do the same for these values only. Only the last one is passed on."""
_REFUSED = frozenset({
    "authtype", "hostaddr", "oauth_ca_file", "oauth_client_id", "oauth_client_secret", "oauth_issuer", "oauth_scope",
    "require_auth", "requirepeer", "requiressl", "scram_client_key", "scram_server_key", "sslcrldir", "sslkeylogfile",
    "tty",
})  # fmt: skip
KEYWORDS = _SUPPORTED | _REFUSED | frozenset(_ACCEPTED_VALUES)
"""All keywords of libpq, and ours."""
_INTEGERS = frozenset({
    "connect_timeout", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "tcp_user_timeout",
})  # fmt: skip
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
_SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,39}")
"""A queue's schema is named after it, so it is shorter than PostgreSQL's 63 characters."""
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

_URL = re.compile(r"postgres(?:ql)?://(?:([^@/]*)@)?([^/?]*)(?:/([^?]*))?(?:\?(.*))?", re.DOTALL)
"""User and password end at the first @, unless a / comes before it."""
_KEYWORD_PAIR = re.compile(
    r"\s*(\w+)\s*=\s*(?:'((?:\\.|[^'\\])*)'(?=\s|$)|((?:\\.|[^\s\\'])(?:\\.|[^\s\\])*)?)", re.DOTALL
)


def parse_url(text: str) -> Parameters:
    """Read ``postgresql://user:password@host:port,host:port/database?parameter=value``.

    Raises:
        DsnError: It is not such a URL, or has a parameter that is not supported.
    """
    if _BLANK.search(text):
        raise DsnError("it holds a blank or a control character: write a blank as %20")
    found = _URL.fullmatch(text)
    userinfo, hosts, path, query = ("", "@", "", "") if found is None else found.groups(default="")
    if "?" in userinfo or "@" in hosts:
        raise DsnError("its user or password holds a bare @ or ?: write @ as %40, ? as %3F, / as %2F, % as %25")
    parameters = Parameters()
    user, _, password = userinfo.partition(":")
    parameters["user"], parameters["password"] = _decoded(user), _decoded(password)
    if hosts:
        parameters["host"], parameters["port"] = _hosts(hosts)
    parameters["dbname"] = _decoded(path)
    for pair in query.split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not equals:
            raise DsnError("a parameter after ? has no value: write name=value&name=value, and & as %26")
        if (name, value) == ("ssl", "true"):
            name, value = "sslmode", "require"  # as libpq does
        parameters[name] = _decoded(value)
    return check_parameters(parameters)


def _hosts(text: str) -> tuple[str, str]:
    hosts, ports = list[str](), list[str]()
    for each in text.split(","):
        found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?", each)
        if found is None:
            raise DsnError("a host or a port is not one: write host:port, and / in a password as %2F, : in it as %3A")
        hosts.append(_decoded(found[1].strip("[]")))
        ports.append(found[2] or "")
    return ",".join(hosts), ",".join(ports) if any(ports) else ""


def _decoded(text: str) -> str:
    if _BARE_PERCENT.search(text):
        raise DsnError("it holds a % that is no escape (in a password?): write % as %25")
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        raise DsnError("it holds an escape that is no character of UTF-8, or is NUL")
    return decoded


def parse_keywords(text: str) -> Parameters:
    """Read ``host=db dbname=launches password='a b'``, where a backslash escapes a quote and itself.

    Raises:
        DsnError: It is not of this form, or has a parameter that is not supported.
    """
    parameters = Parameters()
    place, end = 0, len(text.rstrip())
    while place < end:
        found = _KEYWORD_PAIR.match(text, place)
        if found is None:
            raise DsnError("it is not keyword=value, ...: put a value with blanks into single quotes")
        quoted, bare = found[2], found[3]
        parameters[found[1]] = re.sub(r"\\(.)", r"\1", quoted if quoted is not None else bare or "", flags=re.DOTALL)
        place = found.end()
    return check_parameters(parameters)


def check_schema(name: str) -> None:
    """Refuse what is no plain name of a schema.

    Raises:
        DsnError: It is not.
    """
    if not _SCHEMA.fullmatch(name):
        raise DsnError("schema is not a name of at most 40 lower-case letters, digits and _")


def create_schema_sql(name: str) -> str:
    """Make a schema if it is not there. CREATE SCHEMA IF NOT EXISTS needs the right to make one in any case."""
    exists = f"SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{name}'"
    return f'DO $$ BEGIN IF NOT EXISTS ({exists}) THEN CREATE SCHEMA "{name}"; END IF; END $$;'


def check_parameters(parameters: Parameters) -> Parameters:
    """The parameters that are to be used.

    Raises:
        DsnError: One of them is not supported.
    """
    given = Parameters({name: value for name, value in parameters.items() if value})
    for name in given:
        if name not in KEYWORDS:
            # The name itself is not shown: it may be the rest of a password with an &.
            close = get_close_matches(name, KEYWORDS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise DsnError(f"it has a parameter that libpq does not know{hint}")
    for name in sorted(given):
        if name in _REFUSED:
            raise DsnError(f"the parameter {name} is not supported: leave it out{_ADVICE.get(name, '')}")
        allowed = _ACCEPTED_VALUES.get(name)
        if allowed is not None and given[name].lower() not in allowed:
            raise DsnError(f"of the parameter {name}, only {' or '.join(sorted(allowed))} is supported")
        if name in _INTEGERS and not re.fullmatch("-?[0-9]{1,9}", given[name]):
            raise DsnError(f"the parameter {name} is not an integer")
        if allowed is not None and name != "target_session_attrs":
            del given[name]
    if given.get("sslmode", "prefer") not in _SSL_MODES:
        raise DsnError(f"sslmode is not one of {', '.join(sorted(_SSL_MODES))}")
    if "schema" in given:
        check_schema(given["schema"])
    hosts, ports = given.get("host", "").split(","), given.get("port", "").split(",")
    if not all(re.fullmatch("[0-9]{0,5}", port) and (not port or 1 <= int(port) <= 65535) for port in ports):
        raise DsnError("a port is not a number from 1 to 65535")
    if len(ports) not in {1, len(hosts)}:
        raise DsnError(f"there are {len(ports)} ports for {len(hosts)} hosts: give one, or one for each")
    return given


_ADVICE = {"hostaddr": ", and give the address as host", "require_auth": ", and let pg_hba.conf of the server decide"}
