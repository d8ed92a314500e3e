"""pydantic, FastAPI, json, orjson and data frames take the values as they are."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import orjson
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter, ValidationError

from dispatchkit import (
    Counts,
    DirectClient,
    Dispatch,
    Done,
    Listing,
    LogEntry,
    NotSent,
    NotSentError,
    Outcome,
    RejectedError,
    Report,
    Run,
    RunHeldError,
    StartDispatch,
    StartedDispatch,
    State,
    Target,
    to_json,
)
from dispatchkit.core.call.client import ClientStatistics
from dispatchkit.sandbox import Sandbox
from dispatchkit.values import Value
from tests.schema import SCHEMA, fits, schema_name
from tests.test_readme import block, namespace
from tests.test_to_dict import ATTEMPTS, VALUES

DONE = Done(0, StartDispatch(7), StartedDispatch(7), ATTEMPTS)
NOT_SENT = NotSent(1, StartDispatch(8), NotSentError("connection refused"))
LIST = Listing((Dispatch(dispatch_id=1, status="done"),), total=2)


def definitions(document: Any) -> Any:
    """The same document with references as in ``schema.json``."""
    return json.loads(json.dumps(document).replace("#/components/schemas/", "#/$defs/"))


async def get(app: FastAPI, url: str) -> Any:
    """The JSON with which an application answers 200."""
    path, _, query = url.partition("?")
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    assert sent[0]["status"] == 200
    return json.loads(b"".join(message["body"] for message in sent[1:]))


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_pydantic_serialises_values(value: Value) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(type(value))
    assert adapter.validate_python(value) is value
    assert adapter.dump_python(value) == adapter.dump_python(value, mode="json") == value.to_dict()
    assert json.loads(adapter.dump_json(value)) == value.to_dict()


@pytest.mark.parametrize("mode", ["validation", "serialization"])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_pydantic_schema_ships(value: Value, mode: Any) -> None:
    name = schema_name(type(value))
    values: Any = list.__class_getitem__(type(value))
    schema = TypeAdapter(values).json_schema(mode=mode)
    assert schema.pop("$defs").items() <= SCHEMA["$defs"].items()
    assert schema == {"type": "array", "items": {"$ref": f"#/$defs/{name}"}}


def test_pydantic_tells_unions_apart() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(list[Outcome[StartedDispatch] | Report | None])
    assert adapter.dump_python([DONE, NOT_SENT, Report(), None]) == [
        DONE.to_dict(),
        NOT_SENT.to_dict(),
        Report().to_dict(),
        None,
    ]
    with pytest.warns(UserWarning, match="expected a Report of dispatchkit"):
        TypeAdapter(Report).dump_python(Counts())  # type: ignore[arg-type]


def test_model_holds_values() -> None:
    class Launch(BaseModel):
        outcomes: list[Outcome[StartedDispatch]]
        error: RejectedError | None = None

    launch = Launch(outcomes=[DONE], error=RejectedError("no", status=403, code=1))
    assert launch.outcomes == [DONE]
    fits(launch.model_dump()["outcomes"][0], "Outcome")
    fits(launch.model_dump()["error"], "Error")


@pytest.mark.parametrize("given", [{"done": 1}, Counts(), None, "x"], ids=["dict", "other", "none", "text"])
def test_values_are_not_built(given: object) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(Report).validate_python(given)
    with pytest.raises(ValidationError, match="not built from JSON"):
        TypeAdapter(Report).validate_json(b'{"done": 1}')
    (error,) = raised.value.errors()
    assert error["type"] == "dispatchkit_value"
    assert error["msg"] == "a Report of dispatchkit is expected: it can be returned as JSON, and is not built from JSON"


async def test_fastapi_answers_values() -> None:
    app = FastAPI()

    @app.get("/outcomes")
    def _outcomes() -> list[Outcome[StartedDispatch]]:
        return [DONE, NOT_SENT]

    @app.get("/report", responses={409: {"model": RunHeldError}})
    async def _report() -> Report:
        return Report(done=1)

    @app.get("/listing", response_model=Listing[Dispatch])
    def _listing() -> Any:
        return LIST

    @app.get("/ledger")
    def _ledger(what: str) -> Run | Counts | Target | ClientStatistics | LogEntry | RejectedError:
        return Counts(done=1) if what == "counts" else RejectedError("no", status=403, code=1)

    assert await get(app, "/outcomes") == [DONE.to_dict(), NOT_SENT.to_dict()]
    assert await get(app, "/report") == Report(done=1).to_dict()
    assert await get(app, "/listing") == LIST.to_dict()
    assert await get(app, "/ledger?what=counts") == Counts(done=1).to_dict()
    fits(await get(app, "/ledger?what=error"), "Error")

    document = definitions(await get(app, "/openapi.json"))
    answers = {path: document["paths"][path]["get"]["responses"]["200"] for path in document["paths"]}
    assert answers["/report"]["content"]["application/json"]["schema"] == {"$ref": "#/$defs/Report"}
    assert answers["/outcomes"]["content"]["application/json"]["schema"]["items"] == {"$ref": "#/$defs/Outcome"}
    components = document["components"]["schemas"]
    for name in components.keys() - {"HTTPValidationError", "ValidationError"}:
        assert components[name] == SCHEMA["$defs"][name], name
    assert {"Outcome", "OutcomeError", "State", "Attempt", "Report", "LedgerError", "Listing", "Run"} <= {*components}


async def test_fastapi_needs_annotation() -> None:
    app = FastAPI()

    @app.get("/unknown")
    async def _unknown():
        return {"report": Report(done=1)}

    @app.get("/annotated")
    async def _annotated() -> dict[str, Report]:
        return {"report": Report(done=1)}

    @app.get("/plain")
    async def _plain():
        return {"report": Report(done=1).to_dict()}

    with pytest.raises(ValueError, match="not iterable"):  # which is a 500
        await get(app, "/unknown")
    assert await get(app, "/annotated") == await get(app, "/plain") == {"report": Report(done=1).to_dict()}


async def test_example_answers_outcome() -> None:
    names = namespace(block("python", "app = FastAPI()"))
    async with Sandbox() as sandbox:
        direct = DirectClient(sandbox.direct_token, base_url=sandbox.url)
        names["direct"] = direct
        assert (await get(names["app"], "/start?dispatch_id=7"))["state"] == "done"  # type: ignore[arg-type]
        assert (await get(names["app"], "/start?dispatch_id=0"))["state"] == "not_sent"  # type: ignore[arg-type]
        await direct.close()


async def test_state_is_one_component() -> None:
    app = FastAPI()

    @app.get("/counts")
    def _counts(state: State = State.DONE) -> dict[State, list[Outcome[StartedDispatch]]]:
        return {state: [DONE]}

    assert await get(app, "/counts?state=unknown") == {"unknown": [DONE.to_dict()]}
    components = definitions(await get(app, "/openapi.json"))["components"]["schemas"]
    assert components["State"] == SCHEMA["$defs"]["State"]
    assert not [name for name in components if "__" in name]
    adapter = TypeAdapter(State)
    assert adapter.validate_json('"done"') is adapter.validate_python(State.DONE) is State.DONE
    with pytest.raises(ValidationError, match="'done', 'rejected', 'not_sent' or 'unknown'"):
        adapter.validate_python("perhaps")


def test_foreign_value_is_object() -> None:
    class Report(Value):
        """Of another package, which has no definition in ``schema.json``."""

    assert TypeAdapter(Report).json_schema() == {"type": "object"}


def test_dumps_takes_values() -> None:
    answer = {"outcomes": [DONE, NOT_SENT], "error": NOT_SENT.error, "state": State.DONE}
    expected = {
        "outcomes": [DONE.to_dict(), NOT_SENT.to_dict()],
        "error": NOT_SENT.error.to_dict(),
        "state": "done",
    }
    assert json.loads(json.dumps(answer, default=to_json)) == expected
    assert orjson.loads(orjson.dumps(answer, default=to_json)) == expected


def test_dumps_refuses_other_values() -> None:
    with pytest.raises(TypeError, match="set is no value of dispatchkit"):
        json.dumps({1}, default=to_json)


def test_pydantic_is_imported_lazily() -> None:
    script = (
        "import sys, dispatchkit\nfrom dispatchkit import *\ndispatchkit.Report().to_dict()\n"
        "print('pydantic' in sys.modules, 'pydantic_core' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "False False\n"
