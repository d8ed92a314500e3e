"""Short ways to put the sandbox's providers to work."""

from __future__ import annotations

import json
from typing import Any

from dispatchkit.sandbox import AltcraftProvider, Call, DirectProvider, Reply

DIRECT_HEADERS = {"Authorization": "Basic c2FuZGJveDpzYW5kYm94"}
JSON_HEADERS = {"Content-Type": "application/json"}


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, now: float = 1_600_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def direct(clock: Clock | None = None, **settings: Any) -> DirectProvider:
    return DirectProvider(settings.pop("dispatches", range(1, 101)), clock=clock or Clock(), **settings)


def altcraft(clock: Clock | None = None, **settings: Any) -> AltcraftProvider:
    return AltcraftProvider(settings.pop("mailings", range(1, 101)), clock=clock or Clock(), **settings)


def start(provider: DirectProvider, dispatch_id: int = 5) -> Reply:
    return provider.answer(Call("POST", f"/api/v1/dispatch/{dispatch_id}/start", {}, DIRECT_HEADERS))


def stop(provider: DirectProvider, dispatch_id: int = 5) -> Reply:
    return provider.answer(Call("POST", f"/api/v1/dispatch/{dispatch_id}/stop", {}, DIRECT_HEADERS))


def add_messages(provider: DirectProvider, batch: object, dispatch_id: int = 5, **headers: str) -> Reply:
    body = batch if isinstance(batch, bytes) else json.dumps(batch).encode()
    all_headers = {**DIRECT_HEADERS, **(headers or JSON_HEADERS)}
    return provider.answer(Call("POST", f"/api/v1/dispatch/{dispatch_id}/messages", {}, all_headers, body))


def list_(provider: DirectProvider, **query: object) -> Reply:
    filters = {name: str(value) for name, value in query.items()}
    return provider.answer(Call("GET", "/api/v1/dispatch", filters, DIRECT_HEADERS))


def listed_status(provider: DirectProvider, dispatch_id: int = 5) -> str:
    (item,) = json.loads(list_(provider, dispatch_id=dispatch_id).body)["items"]
    return item["status"]


def refusal(reply: Reply) -> tuple[int, int]:
    return reply.status, json.loads(reply.body)["error"]["code"]


def ask(
    provider: AltcraftProvider,
    method: str,
    headers: dict[str, str] | None = None,
    *,
    body: bytes | None = None,
    **fields: object,
) -> Reply:
    if body is None:
        body = json.dumps({"token": "sandbox", "id": 82, **fields}).encode()
    return provider.answer(Call("POST", f"/api/v1.1/campaigns/{method}", {}, {**JSON_HEADERS, **(headers or {})}, body))


def ask_xml(provider: AltcraftProvider, method: str, inner: str, **headers: str) -> Reply:
    body = f"<xml><token>sandbox</token>{inner}</xml>".encode()
    return ask(provider, method, {"Content-Type": "application/xml", **headers}, body=body)


def error(reply: Reply) -> int:
    assert reply.status == 200
    return json.loads(reply.body)["error"]


def log(provider: AltcraftProvider, **fields: Any) -> dict[str, Any]:
    return json.loads(ask(provider, "log_v2", **fields).body)


def states(provider: AltcraftProvider, **fields: object) -> list[str]:
    return [entry["state"] for entry in log(provider, **fields)["data"]]
