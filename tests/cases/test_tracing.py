"""OpenTelemetry spans and structlog's context: who did what, across events and workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowlib import Event
from flowlib.middleware import LogContext, Tracing
from tests.cases.case import Case, in_place
from tests.patience import until


@pytest.fixture
def spans(case: Case) -> InMemorySpanExporter:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    case.use_middleware([Tracing(provider), LogContext()])
    return exporter


def span_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def test_an_event_what_it_starts_and_what_that_sends_is_one_trace(case: Case, spans: InMemorySpanExporter) -> None:
    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("flaky", case.body("flaky", fails=1))
        yield step.sleep("nap", 0.01)
        yield step.send_event("tell", Event("second", {}, id="second"))

    @case.function(on="second")
    def g(event: Event[Any], step: Any) -> Any:
        yield step.run("work", case.body("work"))

    run = case.run()
    (second,) = case.app.runs.of_event("second")
    case.ended(second)
    ended = spans.get_finished_spans()
    assert sorted(span.name for span in ended) == [
        "send second", "send test", "start f", "start g", "step flaky", "step flaky", "step tell", "step work",
    ]  # fmt: skip
    assert len({trace_of(span) for span in ended}) == 1
    by_name = {span.name: span for span in ended}
    for child, parent in (("step flaky", "send test"), ("step work", "send second"), ("send second", "step tell")):
        assert parent_of(by_name[child]) == span_of(by_name[parent]), child
    first, again = (span for span in ended if span.name == "step flaky")
    assert [first.status.is_ok, again.status.is_ok] == [False, True]
    assert again.attributes is not None
    assert (again.attributes["flow.attempt"], again.attributes["flow.run"]) == (2, run.id)


@in_place
def test_without_a_context_a_run_has_a_trace_of_its_own(case: Case, spans: InMemorySpanExporter) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("one", case.body("one"))
        yield step.run("two", case.body("two"))

    case.start()
    for event_id in ("one", "two"):  # of a producer that knows nothing of traces
        case.app.store.send_events([(event_id, "test", b"\x80", 0, "")])
    until(lambda: all(map(case.app.runs.of_event, ("one", "two"))))
    runs = [case.ended(case.app.runs.of_event(event_id)[0]) for event_id in ("one", "two")]
    assert [run.status for run in runs] == ["completed"] * 2
    traces = [
        {trace_of(span) for span in spans.get_finished_spans() if run.id in (span.attributes or {}).values()}
        for run in runs
    ]
    assert [len(each) for each in traces] == [1, 1]
    assert traces[0] != traces[1]


def test_lines_of_structlog_know_their_run_step_and_attempt(case: Case, spans: InMemorySpanExporter) -> None:
    said: list[dict[str, Any]] = []

    def say() -> None:
        said.append(structlog.contextvars.get_contextvars())

    async def say_async() -> None:
        await asyncio.sleep(0)
        say()

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        say()
        yield step.run("sync", say)
        yield step.run("async", say_async)
        say()

    run = case.run()
    assert run.status == "completed", run.error
    here = {"app": "case", "function": "f", "run": run.id, "event": run.event.id}
    bodies = [each for each in said if "step" in each]
    assert bodies == [{**here, "step": "sync", "attempt": 1}, {**here, "step": "async", "attempt": 1}]
    assert all(each == here for each in said if "step" not in each)
    assert structlog.contextvars.get_contextvars() == {}
