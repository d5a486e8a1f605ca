"""What a run says is kept once, with its step and attempt; what is only repeated is silent everywhere."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flowlib import Event
from flowlib.capture import Recorder
from tests.cases.case import Case, in_place
from tests.patience import until

LINES = [
    ("function begins", "", 1),
    ("print before a", "", 1),
    ("log in a", "a", 1),
    ("print in a", "a", 1),
    ("warning in a", "a", 1),
    ("log in a", "a", 2),
    ("print in a", "a", 2),
    ("between a and b", "a", 1),
    ("log in b", "b", 1),
    ("print in b", "b", 1),
    ("function ends", "b", 1),
]


class Heard(logging.Handler):
    """A handler as a user may have one: it gets what the run says, and to whom it belongs."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[str, str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name in ("flowlib.step", "shop"):
            run, step, attempt = (getattr(record, name, None) for name in ("run", "step", "attempt"))
            self.records.append((record.getMessage(), str(step), int(attempt or 0), str(run)))


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def talkative(case: Case) -> None:
    def speak(step: Any, name: str) -> None:
        step.log.info("log in %s", name)
        print(f"print in {name}")

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        def a() -> None:
            speak(step, "a")
            if step.attempt == 1:
                logging.getLogger("shop").warning("warning in a")
                raise ValueError("a fails once")

        async def b() -> None:
            await asyncio.sleep(0)
            speak(step, "b")

        step.log.info("function begins")
        print("print", "before a")
        yield step.run("a", a)
        step.log.info("between a and b")
        yield step.run("b", b)
        step.log.info("function ends")


def test_each_line_is_kept_once_with_its_step_and_attempt(case: Case) -> None:
    """BEHAVIOURS 126: replays log nothing twice, failed attempts log again."""
    talkative(case)
    run = case.run()
    assert run.status == "completed"
    assert case.lines(run.id) == LINES


def test_other_handlers_hear_each_record_once_and_of_which_run_it_is(case: Case, heard: Heard) -> None:
    """BEHAVIOURS 126."""
    talkative(case)
    run = case.run()
    expected = [(text, step) for text, step, _ in LINES if not text.startswith("print")]
    assert [(text, step) for text, step, _, _ in heard.records] == expected
    assert {of for *_, of in heard.records} == {run.id}


def test_a_function_that_is_tried_again_speaks_again_only_of_what_comes_after_its_last_step(case: Case) -> None:
    """BEHAVIOURS 126: the second call repeats what was said before the step, and goes on from there."""

    @case.function(retries=1)
    def f(event: Event[Any], step: Any) -> Any:
        step.log.info("before")
        yield step.run("a", case.body("a"))
        step.log.info("call %d", step.attempt)
        if step.attempt == 1:
            raise ValueError("between")

    run = case.run()
    assert case.lines(run.id) == [("before", "", 1), ("call 1", "a", 1), ("call 2", "a", 2)]


@in_place
def test_levels_loggers_and_order_are_kept(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        def say() -> None:
            step.log.warning("one")
            print("two\nthree", end="")
            logging.getLogger("shop").error("four")
            print(" and more")
            step.log.debug("not heard: the level of the logger is INFO")

        yield step.run("say", say)

    run = case.run()
    said = [(e.detail["level"], e.detail["logger"], e.detail["text"]) for e in case.entries(run.id, "log")]
    assert said == [
        ("WARNING", "flowlib.step", "one"),
        ("PRINT", "stdout", "two"),
        ("ERROR", "shop", "four"),
        ("PRINT", "stdout", "three and more"),
    ]
    times = [entry.at for entry in case.entries(run.id, "log")]
    assert times == sorted(times)


@in_place
def test_lines_of_a_step_that_still_runs_can_be_followed(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        def say() -> None:
            step.log.info("working")
            until(lambda: case.ledger)

        yield step.run("say", say)

    run_id = case.send()
    until(lambda: case.lines(run_id))
    assert case.lines(run_id) == [("working", "say", 1)]
    assert case.app.runs.get(run_id).status == "running"
    case.ledger.append("seen")
    case.ended(run_id)
    assert case.lines(run_id) == [("working", "say", 1)]


@in_place
def test_runs_side_by_side_keep_their_own_lines(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        for n in range(3):
            yield step.run(f"say-{n}", lambda: print(event.data["name"]))

    case.start()
    case.start()
    runs = {name: case.send({"name": name}) for name in "abcd"}
    for name, run_id in runs.items():
        case.ended(run_id)
        assert [text for text, _, _ in case.lines(run_id)] == [name] * 3


@in_place
def test_a_very_long_line_is_cut_and_says_so(case: Case) -> None:
    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("say", lambda: print("x" * 100_000))

    ((line, _, _),) = case.lines(case.run().id)
    assert line == "x" * (16 * 1024) + "… (100000 characters)"


def test_a_transition_does_not_overtake_the_lines_that_a_beat_is_just_storing() -> None:
    """Else an attempt's lines would stand behind its end."""
    recorder, stored = Recorder("run"), list[str]()
    sent, arrived = threading.Event(), threading.Event()
    recorder.add("INFO", "shop", "charging")

    def store(_lines: bytes) -> None:
        sent.set()
        arrived.wait(20)
        stored.append("lines")

    beat = threading.Thread(target=recorder.store_apart, args=[store])
    transition = threading.Thread(target=lambda: stored.append(f"transition{recorder.drain().decode()}"))
    beat.start()
    assert sent.wait(20)
    transition.start()
    transition.join(0.1)
    arrived.set()
    for each in (beat, transition):
        each.join(20)
    assert stored == ["lines", "transition"]


def test_lines_that_could_not_be_stored_apart_go_with_the_next_transition() -> None:
    recorder = Recorder("run")
    recorder.add("INFO", "shop", "charging")

    def refuse(_lines: bytes) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        recorder.store_apart(refuse)
    recorder.add("INFO", "shop", "charged")
    drained = recorder.drain()
    assert 0 < drained.index(b"charging") < drained.index(b"charged")
    assert recorder.drain() == b""
