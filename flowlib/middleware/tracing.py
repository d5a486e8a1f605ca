"""OpenTelemetry: spans of sending, starting and trying, in the trace of who sent the event. Needs `flowlib-rq[otel]`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flowlib.errors import ConfigError
from flowlib.model import Event

from . import Middleware, RunInfo, StepInfo

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise ConfigError("Tracing needs the package opentelemetry-api: pip install 'flowlib-rq[otel]'") from missing


class Tracing(Middleware):
    """The W3C trace context travels beside each event, so that what an event starts, and what that sends and invokes, is one
    trace.

    A span for each event that is sent, for each run that starts, and for each attempt of a step. A run may last for days,
    on many workers: its steps are children of the event's span, and a run whose event carries no context has a trace of
    its own, the same on each worker. `provider` defaults to the global one.

    >>> app = App("orders", middleware=[Tracing()])
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("flowlib", tracer_provider=provider)
        self._carrier = TraceContextTextMapPropagator()

    @contextmanager
    def send(self, event: Event[Any], meta: dict[str, str]) -> Iterator[None]:
        told = {"messaging.system": "flowlib", "messaging.destination.name": event.name}
        with self._tracer.start_as_current_span(f"send {event.name}", kind=SpanKind.PRODUCER, attributes=told):
            self._carrier.inject(meta)
            yield

    @contextmanager
    def start(self, run: RunInfo) -> Iterator[None]:
        with self._span(run, f"start {run.function}", SpanKind.CONSUMER, {}):
            yield

    @contextmanager
    def step(self, step: StepInfo) -> Iterator[None]:
        told: dict[str, str | int] = {"flow.step": step.id, "flow.attempt": step.attempt}
        with self._span(step.run, f"step {step.id}", SpanKind.INTERNAL, told):
            yield

    def _span(self, run: RunInfo, name: str, kind: SpanKind, told: Mapping[str, str | int]) -> Any:
        about = {"flow.app": run.app, "flow.function": run.function, "flow.run": run.run_id, "flow.event": run.event_id}
        return self._tracer.start_as_current_span(
            name, context=self._of_event(run), kind=kind, attributes={**about, **told}
        )

    def _of_event(self, run: RunInfo) -> Context:
        context = self._carrier.extract(run.meta, context=Context())
        if trace.get_current_span(context).get_span_context().is_valid:
            return context
        made = hashlib.sha256(run.run_id.encode()).digest()
        own = SpanContext(
            int.from_bytes(made[:16], "big"), int.from_bytes(made[16:24], "big"), True, TraceFlags(TraceFlags.SAMPLED)
        )
        return trace.set_span_in_context(NonRecordingSpan(own), Context())
