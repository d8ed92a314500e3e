"""Adapt a connection to a database with the tables in another schema, or with an encoding other than UTF-8.

The statements name the schema ``dispatchkit``. PostgreSQL refuses a whole statement for one character that the
database's encoding lacks, so an outcome would stay unrecorded. The adapted connection replaces the schema and such
characters. Other databases use the connection itself.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from dispatchkit.ledger.postgres.driver_settings import DEFAULT_SCHEMA
from dispatchkit.ledger.postgres.protocol import Connection, Row

__all__ = ["adapted", "escaping", "in_schema"]

_ESCAPE = "dispatchkit.json"


def _json_escape(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks as JSON does, so that it stays the same text where it is JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end


codecs.register_error(_ESCAPE, _json_escape)


def escaping(encoding: str) -> Callable[[str], str] | None:
    r"""What makes text fit into a database of this encoding: ``\u20ac`` for a character that it lacks; None for UTF-8.

    SQL_ASCII holds any bytes, and is given UTF-8.
    """
    if encoding in {"UTF8", "SQL_ASCII"}:
        return None
    name = re.sub(r"^WIN(\d+)$", r"cp\1", encoding)
    if re.fullmatch(r"cp125[0-8]|LATIN(?:[1-9]|10)|ISO_8859_[5-8]|KOI8[RU]", name):
        codec = codecs.lookup({"KOI8R": "koi8-r", "KOI8U": "koi8-u"}.get(name, name)).name
    else:
        codec = "ascii"  # which all encodings of a server include
    return lambda text: text if text.isascii() else text.encode(codec, _ESCAPE).decode(codec)


def in_schema(statement: str, schema: str) -> str:
    """A statement of ours, with the ledger's tables in another schema."""
    return statement if schema == DEFAULT_SCHEMA else statement.replace("dispatchkit.", f'"{schema}".')


def adapted(connection: Connection, *, schema: str, encoding: str) -> Connection:
    """The connection itself, unless there is something to adapt."""
    escape = escaping(encoding)
    if schema == DEFAULT_SCHEMA and escape is None:
        return connection
    return AdaptedConnection(connection, schema, escape)


class AdaptedConnection:
    """See `Connection`, whose methods these are."""

    def __init__(self, connection: Connection, schema: str, escape: Callable[[str], str] | None) -> None:
        self._connection = connection
        self._schema = schema
        self._escape = escape

    def _values(self, values: tuple[object, ...]) -> tuple[Any, ...]:
        return values if self._escape is None else tuple(self._fitting(value) for value in values)

    def _fitting(self, value: object) -> object:
        if self._escape is not None and isinstance(value, str):
            return self._escape(value)
        return [self._fitting(each) for each in cast("list[object]", value)] if isinstance(value, list) else value

    async def execute(self, statement: str, *values: object) -> str:
        """See `Connection.execute`."""
        return await self._connection.execute(in_schema(statement, self._schema), *self._values(values))

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        """See `Connection.fetch`."""
        return await self._connection.fetch(in_schema(statement, self._schema), *self._values(values))

    async def fetchrow(self, statement: str, *values: object) -> Row | None:
        """See `Connection.fetchrow`."""
        return await self._connection.fetchrow(in_schema(statement, self._schema), *self._values(values))

    async def fetchval(self, statement: str, *values: object) -> Any:
        """See `Connection.fetchval`."""
        return await self._connection.fetchval(in_schema(statement, self._schema), *self._values(values))

    def transaction(self) -> AbstractAsyncContextManager[object]:
        """See `Connection.transaction`."""
        return self._connection.transaction()

    def get_server_pid(self) -> int:
        """See `Connection.get_server_pid`."""
        return self._connection.get_server_pid()

    def is_closed(self) -> bool:
        """See `Connection.is_closed`."""
        return self._connection.is_closed()

    def terminate(self) -> None:
        """See `Connection.terminate`."""
        self._connection.terminate()

    async def close(self, *, timeout: float | None = None) -> None:
        """See `Connection.close`."""
        await self._connection.close(timeout=timeout)
