"""OpenTelemetry for every client of a process, or for one: spans, metrics and ``traceparent``. Extra: ``otel``.

All clients that are made afterwards, as ``opentelemetry-instrument`` does it::

    from dispatchkit.otel import Instrumentor

    Instrumentor().instrument()

One client::

    DirectClient(token, observers=[OpenTelemetryObserver()])

A call has a span of kind INTERNAL with its outcome. Each attempt and each state read is a child of kind CLIENT. It has
the attributes of the semantic conventions for HTTP. All attempts of a call send the ``traceparent`` of the call's span,
since a repeated request must be identical. `OpenTelemetryObserver` lists attributes and metrics.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

import attrs

from dispatchkit._version import __version__
from dispatchkit.core.events import (
    AttemptEnded,
    BreakerOpened,
    CallEnded,
    CallStarted,
    Event,
    Paused,
    StateRead,
    Waiting,
)
from dispatchkit.core.observe import add_for_all, remove_for_all
from dispatchkit.errors import State

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # it is untyped
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise ImportError("OpenTelemetry needs an extra: pip install 'dispatchkit[otel]'") from missing

__all__ = ["Instrumentor", "OpenTelemetryObserver"]

Attributes: TypeAlias = dict[str, str | int | float | bool]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOUNDARIES = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
"""Those that the semantic conventions advise for ``http.client.request.duration``."""


@attrs.frozen
class _OpenCall:
    """A call that is under way."""

    span: Span
    context: Context
    """The parent of its attempts and state reads."""
    started: CallStarted


class OpenTelemetryObserver:
    """An observer that makes spans and metrics.

    Spans:

    - The call, named by its command. ``dispatchkit.provider``, ``.command``, ``.target``, ``.run``, ``.index``,
      ``.request_id``, ``.outcome``, ``.attempts`` and ``.state_reads``; ``error.type`` unless it is done. A wait is a
      span event.
    - Each attempt and each state read, named by its method. ``http.request.method``, ``url.full`` (without the query),
      ``server.address``, ``server.port``, ``http.response.status_code``, ``http.request.resend_count``, ``error.type``,
      and ``dispatchkit.outcome`` or ``dispatchkit.evidence``.

    Metrics:

    - ``dispatchkit.calls``: calls that have ended, by provider, command and outcome.
    - ``dispatchkit.calls.in_flight``: calls that are under way, waits and retries included.
    - ``dispatchkit.retries``: attempts after the first one of a call, by provider and command.
    - ``dispatchkit.state_reads``: state reads, by provider, command and evidence.
    - ``dispatchkit.pauses``: pauses, by provider and reason (``throttled`` or ``breaker``).
    - ``http.client.request.duration``: a histogram of attempts and state reads in seconds, with the attributes of the
      conventions.

    A call that begins inside of ``suppress_instrumentation()`` has neither.

    Args:
        tracer_provider: The provider of spans. Default: the global one.
        meter_provider: The provider of metrics. Default: the global one.

    Example:
        >>> async with Sandbox() as sandbox:
        ...     tracing = OpenTelemetryObserver()
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url, observers=[tracing]) as direct:
        ...         (await direct.start(7)).dispatch_id
        7
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("dispatchkit", __version__, tracer_provider)
        self._calls: dict[int, _OpenCall] = {}
        self._is_stopped = False
        meter = metrics.get_meter("dispatchkit", __version__, meter_provider)
        self._ended = meter.create_counter("dispatchkit.calls", "{call}", "Calls that have ended")
        self._in_flight = meter.create_up_down_counter("dispatchkit.calls.in_flight", "{call}", "Calls under way")
        self._retries = meter.create_counter("dispatchkit.retries", "{attempt}", "Attempts after the first of a call")
        self._state_reads = meter.create_counter("dispatchkit.state_reads", "{read}", "Reads of the provider's state")
        self._pauses = meter.create_counter("dispatchkit.pauses", "{pause}", "Pauses of an account")
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of an attempt or a state read",
            explicit_bucket_boundaries_advisory=_BOUNDARIES,
        )

    def __call__(self, event: Event) -> None:
        """See `dispatchkit.Observer`."""
        match event:
            case CallStarted():
                self._start(event)
            case AttemptEnded() | StateRead() | Waiting() | CallEnded():
                # A call that began before the observer was stopped still gets its end.
                if (call := self._calls.get(event.call)) is not None:
                    self._go_on(call, event)
            case Paused() | BreakerOpened() if not self._is_stopped:
                reason = "throttled" if isinstance(event, Paused) else "breaker"
                self._pauses.add(1, {"dispatchkit.provider": event.provider, "dispatchkit.reason": reason})
            case _:
                pass

    def trace_headers(self, event: CallStarted) -> Mapping[str, str]:
        """``traceparent`` and ``tracestate`` of a call, for all its attempts."""
        headers: dict[str, str] = {}
        if (call := self._calls.get(event.call)) is not None:
            TraceContextTextMapPropagator().inject(headers, call.context)
        return headers

    def stop(self) -> None:
        """See no further call. Those under way get their spans and metrics."""
        self._is_stopped = True

    def _start(self, event: CallStarted) -> None:
        if self._is_stopped or not is_instrumentation_enabled():
            return
        attributes = _of_call(event) | _server(event)
        optional = {"target": event.target, "run": event.run, "index": event.index, "request_id": event.request_id}
        attributes |= {f"dispatchkit.{name}": value for name, value in optional.items() if value is not None}
        span: Span = trace.INVALID_SPAN
        try:
            span = self._tracer.start_span(event.command_type, attributes=attributes, start_time=_nanoseconds(event.at))
        finally:  # a span processor's bug costs no metrics
            self._calls[event.call] = _OpenCall(span, trace.set_span_in_context(span), event)
            self._in_flight.add(1, _of_call(event))

    def _go_on(self, call: _OpenCall, event: AttemptEnded | StateRead | Waiting | CallEnded) -> None:
        match event:
            case AttemptEnded():
                self._add_attempt(call, event)
            case StateRead():
                self._add_state_read(call, event)
            case Waiting():
                call.span.add_event("waiting", {"dispatchkit.seconds": event.seconds}, _nanoseconds(event.at))
            case CallEnded():
                self._end(call, event)

    def _add_attempt(self, call: _OpenCall, event: AttemptEnded) -> None:
        error = None
        if event.outcome is not State.DONE:
            error = str(event.status) if event.status is not None and event.status >= 400 else event.outcome.value
        if event.number > 1:
            self._retries.add(1, _of_call(event))
        own: Attributes = {"dispatchkit.outcome": event.outcome.value, "dispatchkit.result": event.result}
        if event.number > 1:
            own["http.request.resend_count"] = event.number - 1
        self._add_request(call, event, (call.started.method, call.started.url), error, own)

    def _add_state_read(self, call: _OpenCall, event: StateRead) -> None:
        error = None if event.status is not None and event.status < 400 else str(event.status or "no_answer")
        self._state_reads.add(1, _of_call(event) | {"dispatchkit.evidence": event.evidence})
        own: Attributes = {"dispatchkit.evidence": event.evidence, "dispatchkit.result": event.result}
        self._add_request(call, event, (event.method, event.url), error, own)

    def _add_request(
        self,
        call: _OpenCall,
        event: AttemptEnded | StateRead,
        request: tuple[str, str],
        error: str | None,
        own: Attributes,
    ) -> None:
        """Add the span of a request that has ended, and its duration."""
        method, url = request
        common: Attributes = {"http.request.method": method, **_server(event)}
        if event.status is not None:
            common["http.response.status_code"] = event.status
        if error is not None:
            common["error.type"] = error
        self._duration.record(
            event.duration, common | _of_call(event)
        )  # first: a span processor's bug costs no metrics
        ended = _nanoseconds(event.at)
        span = self._tracer.start_span(
            method,
            call.context,
            SpanKind.CLIENT,
            common | own | {"url.full": url},
            start_time=ended - round(event.duration * 1e9),
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, event.result))
        span.end(ended)

    def _end(self, call: _OpenCall, event: CallEnded) -> None:
        del self._calls[event.call]
        outcome: Attributes = {"dispatchkit.outcome": event.outcome.value}
        self._in_flight.add(-1, _of_call(event))
        self._ended.add(1, _of_call(event) | outcome)
        call.span.set_attributes(
            outcome | {"dispatchkit.attempts": event.attempts, "dispatchkit.state_reads": event.state_reads}
        )
        if event.outcome is not State.DONE:
            call.span.set_attribute("error.type", event.error or event.outcome.value)
            call.span.set_status(Status(StatusCode.ERROR, event.outcome.value))
        call.span.end(_nanoseconds(event.at))


def _of_call(event: CallStarted | AttemptEnded | StateRead | CallEnded) -> Attributes:
    return {"dispatchkit.provider": event.provider, "dispatchkit.command": event.command_type}


def _server(event: Event) -> Attributes:
    url = urlsplit(event.base_url)
    return {"server.address": url.hostname or "", "server.port": url.port or (443 if url.scheme == "https" else 80)}


def _nanoseconds(moment: datetime) -> int:
    passed = moment - _EPOCH
    return ((passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds) * 1000


class Instrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments every client that is made afterwards, blocking or not.

    ``opentelemetry-instrument`` finds it by its entry point. A client that has an `OpenTelemetryObserver` of its own
    keeps that one. Clients that were made before `uninstrument` make no further spans and metrics.

    Example:
        >>> Instrumentor().instrument()
        >>> async with Sandbox() as sandbox:
        ...     async with DirectClient(sandbox.direct_token, base_url=sandbox.url) as direct:
        ...         (await direct.start(7)).dispatch_id
        7
        >>> Instrumentor().uninstrument()
    """

    _observer: OpenTelemetryObserver | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """The packages that it needs, besides its own: none."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        self._observer = OpenTelemetryObserver(
            tracer_provider=cast("trace.TracerProvider | None", kwargs.get("tracer_provider")),
            meter_provider=cast("metrics.MeterProvider | None", kwargs.get("meter_provider")),
        )
        add_for_all(self._observer)

    def _uninstrument(self, **kwargs: Any) -> None:
        del kwargs
        if self._observer is not None:
            remove_for_all(self._observer)
            self._observer.stop()
            self._observer = None
