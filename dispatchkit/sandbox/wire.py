"""The interface of the sandbox's server and its providers: calls, replies and acts."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""Any value that JSON can hold."""

Provider: TypeAlias = Literal["direct", "altcraft"]
"""The name of a played provider."""

Action: TypeAlias = Literal["start", "stop", "add_messages", "activate", "launch", "deactivate"]
"""What an act did: the first three are Direct's, the others Altcraft's.

``launch`` is every run of a mailing, whichever of the two endpoints asked for it.
"""


# One mapping for all: replies are remembered by the hundred thousand.
_JSON: Mapping[str, str] = {"Content-Type": "application/json"}


@frozen
class Call:
    """One HTTP request, as a provider sees it.

    Attributes:
        method: The HTTP method, in capitals.
        path: The decoded path, without the query.
        query: The decoded query parameters. Default: none.
        headers: The request headers; look them up with :meth:`header`. Default: none.
        body: The whole body. Default: empty.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(factory=dict[str, str])
    headers: Mapping[str, str] = field(factory=dict[str, str])
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The value of a header, its name compared without case; None if it is absent."""
        value = self.headers.get(name)
        if value is not None:
            return value
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), None)


@frozen
class Reply:
    """One HTTP response, as a provider gives it; ``Content-Length`` is left to the server.

    Attributes:
        status: The HTTP status.
        body: The whole body. Default: empty.
        headers: The response headers. Default: none.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(factory=dict[str, str])

    @classmethod
    def of_json(cls, status: int, value: Json) -> Reply:
        """A reply that carries ``value`` as JSON in UTF-8."""
        body = json.dumps(value, ensure_ascii=False).encode()
        return cls(status, body, _JSON)

    @classmethod
    def of_web_server(cls, status: int) -> Reply:
        """The HTML page that a web server in front of a provider answers with."""
        title = f"{status} {_phrase(status)}"
        page = f"<html>\n<head><title>{title}</title></head>\n<body><h1>{title}</h1></body>\n</html>\n"
        return cls(status, page.encode(), {"Content-Type": "text/html"})

    @classmethod
    def of_sandbox(cls, status: int, text: str) -> Reply:
        """The sandbox's own answer, where the contract does not define the provider's."""
        return cls(status, f"dispatchkit sandbox: {text}\n".encode(), {"Content-Type": "text/plain; charset=utf-8"})

    def raw(self) -> bytes:
        """The reply as HTTP/1.1 bytes, for servers that write to a socket themselves."""
        lines = [f"HTTP/1.1 {self.status} {_phrase(self.status)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode() + self.body


@frozen
class Act:
    """An effect of a request at a provider. Refusals, replays and reads are no acts.

    Attributes:
        provider: The provider that acted.
        action: What was done.
        target: The dispatch or mailing that it was done to.
        at: When, in seconds on the provider's clock.
        request_id: The request id that came with it, if the provider honours one. Default: None.
    """

    provider: Provider
    action: Action
    target: int
    at: float
    request_id: str | None = None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
