"""OpenTelemetry: spans and metrics of real calls, and one ``traceparent`` for all attempts of a call."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dispatchkit import (
    ActivateMailing,
    AltcraftClient,
    AuthenticationError,
    CallStarted,
    DirectClient,
    Event,
    Ledger,
    OutcomeUnknownError,
    RetryPolicy,
    sync,
)
from dispatchkit.core.command import Request
from dispatchkit.core.observe import Tracer
from dispatchkit.core.transport.transport import Transport
from dispatchkit.otel import Instrumentor, OpenTelemetryObserver
from dispatchkit.sandbox import Fault, Sandbox

QUICK = RetryPolicy.for_tests()


class Exported:
    """What the exporters in memory have got."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.observer = OpenTelemetryObserver(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        data: Any = self.reader.get_metrics_data()
        return [
            (dict(point.attributes), point)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def exported() -> Iterator[Exported]:
    made = Exported()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that is sent."""
    requests: list[Request] = []
    real = Transport.send

    async def send(self: Transport, request: Request, *given: Any, **named: Any) -> Any:
        requests.append(request)
        return await real(self, request, *given, **named)

    monkeypatch.setattr(Transport, "send", send)
    return requests


def client(sandbox: Sandbox, *observers: Any, **options: Any) -> DirectClient:
    return DirectClient(sandbox.direct_token, base_url=sandbox.url, retry=QUICK, observers=observers, **options)


async def test_call_and_attempt_spans(sandbox: Sandbox, exported: Exported) -> None:
    with exported.tracers.get_tracer("test").start_as_current_span("job") as job:
        async with client(sandbox, exported.observer) as direct:
            await direct.start(7)
    (call,), (attempt,) = exported.named("StartDispatch"), exported.named("POST")
    assert call.parent == job.get_span_context()
    assert attempt.parent == call.context
    assert (call.kind, attempt.kind) == (SpanKind.INTERNAL, SpanKind.CLIENT)
    port = int(sandbox.url.rpartition(":")[2])
    server = {"server.address": "127.0.0.1", "server.port": port}
    assert dict(call.attributes or {}) == {
        **server,
        "dispatchkit.provider": "direct",
        "dispatchkit.command": "StartDispatch",
        "dispatchkit.target": 7,
        "dispatchkit.outcome": "done",
        "dispatchkit.attempts": 1,
        "dispatchkit.state_reads": 0,
    }
    assert dict(attempt.attributes or {}) == {
        **server,
        "http.request.method": "POST",
        "url.full": f"{sandbox.url}/api/v1/dispatch/7/start",
        "http.response.status_code": 200,
        "dispatchkit.outcome": "done",
        "dispatchkit.result": "HTTP 200",
    }
    assert call.start_time <= attempt.start_time < attempt.end_time <= call.end_time  # type: ignore[operator]
    assert {span.status.status_code for span in (call, attempt)} == {StatusCode.UNSET}


async def test_retry_and_state_read_spans(sandbox: Sandbox, exported: Exported) -> None:
    sandbox.order(Fault.dropped())
    async with client(sandbox, exported.observer) as direct:
        await direct.start(7)
    first, second = exported.named("POST")
    reads = exported.named("GET")
    (call,) = exported.named("StartDispatch")
    assert first.attributes
    assert second.attributes
    assert reads[0].attributes
    assert call.attributes
    assert first.status.status_code is StatusCode.ERROR
    assert first.attributes["error.type"] == "unknown"
    assert "http.response.status_code" not in first.attributes
    assert second.attributes["http.request.resend_count"] == 1
    assert reads[0].attributes["dispatchkit.evidence"] == "not_applied"
    assert all(span.parent == call.context for span in (first, second, *reads))
    assert call.attributes["dispatchkit.state_reads"] == len(reads)
    assert {event.name for event in call.events} == {"waiting"}


async def test_refusal_is_an_error(sandbox: Sandbox, exported: Exported) -> None:
    async with DirectClient("wrong", base_url=sandbox.url, observers=[exported.observer]) as direct:
        with pytest.raises(AuthenticationError):
            await direct.start(7)
    (call,), (attempt,) = exported.named("StartDispatch"), exported.named("POST")
    assert call.attributes
    assert attempt.attributes
    assert call.attributes["error.type"] == "BadCredentialsError"
    assert call.attributes["dispatchkit.outcome"] == "rejected"
    assert attempt.attributes["error.type"] == "401"
    assert {span.status.status_code for span in (call, attempt)} == {StatusCode.ERROR}


async def test_repeated_requests_are_identical(sandbox: Sandbox, exported: Exported, sent: list[Request]) -> None:
    sandbox.order(Fault.dropped())
    observers = [exported.observer]
    async with AltcraftClient(
        sandbox.url, sandbox.altcraft_token, deduplicates=True, retry=QUICK, observers=observers
    ) as altcraft:
        await altcraft.activate(82, run_now=True)
        await altcraft.activate(83)
    first, second, other = sent
    assert (first.headers.items(), first.body) == (second.headers.items(), second.body)
    assert first.headers["traceparent"] != other.headers["traceparent"]
    (call,) = [
        span for span in exported.named("ActivateMailing") if (span.attributes or {})["dispatchkit.target"] == 82
    ]
    assert call.context is not None
    trace, span = f"{call.context.trace_id:032x}", f"{call.context.span_id:016x}"
    assert first.headers["traceparent"].startswith(f"00-{trace}-{span}-")
    assert sandbox.launches[82] == 1


async def test_untraced_requests_stay_the_same(sandbox: Sandbox, sent: list[Request]) -> None:
    events: list[Event] = []
    async with client(sandbox, events.append) as direct:
        await direct.start(7)
    async with client(sandbox, OpenTelemetryObserver()) as direct:  # without a provider, no span is recorded
        await direct.start(8)
    assert sent[0].headers == sent[1].headers
    assert "traceparent" not in sent[0].headers


async def test_takeover_adds_no_header(sandbox: Sandbox, exported: Exported, sent: list[Request]) -> None:
    altcraft = AltcraftClient(sandbox.url, sandbox.altcraft_token, observers=[exported.observer])
    async with altcraft:
        await altcraft._call(ActivateMailing(82), request_id="0c2c5e6e-2a3f-4d57-9c43-1f3f2b8b9a11").run()
    assert "traceparent" not in sent[0].headers


class Forger(OpenTelemetryObserver):
    """A tracer that returns what no request may carry."""

    def __init__(self, headers: Any) -> None:
        super().__init__()
        self.headers = headers

    def trace_headers(self, event: CallStarted) -> Any:
        return self.headers


GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("headers", "added"),
    [
        ({"traceparent": GOOD, "baggage": "user=1", "Request-ID": "x"}, {"traceparent": GOOD}),
        ({"traceparent": GOOD, "tracestate": "a=1"}, {"traceparent": GOOD, "tracestate": "a=1"}),
        ({"traceparent": GOOD, "tracestate": "a=1\r\nX: y"}, {"traceparent": GOOD}),
        ({"traceparent": f"{GOOD}\r\nX: y"}, {}),
        ({"traceparent": 3}, {}),
        ({"tracestate": "a=1"}, {}),
        (None, {}),
    ],
)
async def test_only_trace_headers_pass(sandbox: Sandbox, sent: list[Request], headers: Any, added: Any) -> None:
    forger = Forger(headers)
    assert isinstance(forger, Tracer)
    async with client(sandbox, forger) as direct, client(sandbox) as plain:
        await direct.start(7)
        await plain.start(8)
    assert dict(sent[0].headers) == {**sent[1].headers, **added}


async def test_metrics_count_calls(sandbox: Sandbox, exported: Exported) -> None:
    sandbox.order(Fault.throttled(retry_after=0.01))
    sandbox.order(Fault.dropped())
    async with client(sandbox, exported.observer) as direct:
        for number in (1, 2, 3):
            await direct.start(number)
        reads = direct.statistics().state_reads
    common = {"dispatchkit.provider": "direct", "dispatchkit.command": "StartDispatch"}
    ((attributes, point),) = exported.points("dispatchkit.calls")
    assert (attributes, point.value) == ({**common, "dispatchkit.outcome": "done"}, 3)
    ((attributes, point),) = exported.points("dispatchkit.calls.in_flight")
    assert (attributes, point.value) == (common, 0)
    ((attributes, point),) = exported.points("dispatchkit.retries")
    assert (attributes, point.value) == (common, 2)
    ((attributes, point),) = exported.points("dispatchkit.state_reads")
    assert (attributes["dispatchkit.evidence"], point.value) == ("not_applied", reads)
    ((attributes, point),) = exported.points("dispatchkit.pauses")
    assert (attributes, point.value) == ({"dispatchkit.provider": "direct", "dispatchkit.reason": "throttled"}, 1)
    durations = exported.points("http.client.request.duration")
    assert sum(point.count for _, point in durations) == 5 + reads
    assert {attributes.get("http.response.status_code") for attributes, _ in durations} == {200, 429, None}


async def test_unfinished_calls_count(sandbox: Sandbox, exported: Exported) -> None:
    sandbox.order(Fault.silent())
    async with client(sandbox, exported.observer) as direct:
        call = asyncio.create_task(direct.start(7))
        while not sandbox.launches:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        ((_, point),) = exported.points("dispatchkit.calls.in_flight")
        assert point.value == 1
        call.cancel()
        await asyncio.wait([call])
    ((_, point),) = exported.points("dispatchkit.calls.in_flight")
    assert point.value == 0
    (span,) = exported.named("StartDispatch")
    assert (span.attributes or {})["dispatchkit.outcome"] == "unknown"
    assert (span.attributes or {})["error.type"] == "CancelledError"


@pytest.mark.parametrize("method", ["on_start", "on_end"])
async def test_broken_processor_costs_no_metrics(sandbox: Sandbox, exported: Exported, method: str) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    exported.tracers.add_span_processor(type("Broken", (SpanProcessor,), {method: broken})())
    async with client(sandbox, exported.observer) as direct:
        assert (await direct.start_many([7, 8]).finish()).done == 2
    ((_, in_flight),) = exported.points("dispatchkit.calls.in_flight")
    ((_, calls),) = exported.points("dispatchkit.calls")
    ((_, durations),) = exported.points("http.client.request.duration")
    assert (in_flight.value, calls.value, durations.count) == (0, 2, 2)


async def test_runs_name_their_calls(sandbox: Sandbox, exported: Exported, tmp_path: Path) -> None:
    async with Ledger(tmp_path / "launch.db") as ledger, client(sandbox, exported.observer) as direct:
        await direct.start_many([5, 6], ledger=ledger, run="friday").finish()
    attributes = [span.attributes or {} for span in exported.named("StartDispatch")]
    assert {(each["dispatchkit.run"], each["dispatchkit.index"]) for each in attributes} == {
        ("friday", 0),
        ("friday", 1),
    }


async def test_unknown_launch_is_an_error(sandbox: Sandbox, exported: Exported) -> None:
    sandbox.order(Fault.dropped())
    async with AltcraftClient(
        sandbox.url, sandbox.altcraft_token, retry=QUICK, timeout=1, observers=[exported.observer]
    ) as altcraft:
        with pytest.raises(OutcomeUnknownError):
            await altcraft.activate(82, run_now=True)
    (call,) = exported.named("ActivateMailing")
    assert (call.attributes or {})["dispatchkit.outcome"] == "unknown"
    assert call.status.status_code is StatusCode.ERROR


@pytest.fixture
def instrumented(exported: Exported) -> Iterator[Exported]:
    Instrumentor().instrument(tracer_provider=exported.tracers, meter_provider=exported.meters)
    yield exported
    if Instrumentor().is_instrumented_by_opentelemetry:
        Instrumentor().uninstrument()


async def test_instrumentor_sees_new_clients(sandbox: Sandbox, instrumented: Exported) -> None:
    async with client(sandbox) as direct:
        await direct.start(7)
        Instrumentor().uninstrument()
        await direct.start(8)
        direct._pacer.throttle(0.01)
    async with client(sandbox) as direct:
        await direct.start(9)
        assert direct._observers is None
    assert [(span.attributes or {})["dispatchkit.target"] for span in instrumented.named("StartDispatch")] == [7]
    assert instrumented.points("dispatchkit.pauses") == []


async def test_own_observer_comes_first(sandbox: Sandbox, instrumented: Exported) -> None:
    own = Exported()
    async with client(sandbox, own.observer) as direct:
        await direct.start(7)
    assert len(own.spans) == 2
    assert instrumented.spans == ()


def test_blocking_clients_are_instrumented(sandbox: Sandbox, instrumented: Exported) -> None:
    job = instrumented.tracers.get_tracer("test").start_as_current_span("job")
    with sync.DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct, job as parent:
        direct.start(7)
        expected = parent.get_span_context()
    (call,) = instrumented.named("StartDispatch")
    assert call.parent == expected


async def test_suppressed_calls_are_not_seen(sandbox: Sandbox, exported: Exported, sent: list[Request]) -> None:
    async with client(sandbox, exported.observer) as direct:
        with suppress_instrumentation():
            await direct.start(7)
        await direct.start(8)
    assert [(span.attributes or {})["dispatchkit.target"] for span in exported.named("StartDispatch")] == [8]
    assert ["traceparent" in request.headers for request in sent] == [False, True]
    ((_, calls),) = exported.points("dispatchkit.calls")
    assert calls.value == 1


def test_entry_point_is_found() -> None:
    (entry,) = entry_points(group="opentelemetry_instrumentor", name="dispatchkit")
    assert entry.load() is Instrumentor
    assert issubclass(Instrumentor, BaseInstrumentor)
    assert Instrumentor().instrumentation_dependencies() == ()


def test_clients_need_no_opentelemetry() -> None:
    script = (
        "import sys\nfrom dispatchkit import DirectClient, sync\n"
        "DirectClient('key')\nprint([name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"


def test_missing_extra_is_named() -> None:
    script = "import sys\nsys.modules['opentelemetry'] = None\nimport dispatchkit.otel"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert done.stderr.endswith("ImportError: OpenTelemetry needs an extra: pip install 'dispatchkit[otel]'\n")
