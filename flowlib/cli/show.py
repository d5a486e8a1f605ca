"""`flow show RUN`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import click
from rich.console import Console
from rich.text import Text

from flowlib.codec import decode
from flowlib.journal import id_of
from flowlib.model import ErrorInfo, HistoryEntry, Memo, Run, StepRecord, WaitRecord
from flowlib.readable import jsonable
from flowlib.records import text, unpack_memo
from flowlib.sealed import veiled
from flowlib.store import Store

from .connection import connected, find_url, runs_of
from .draw import draw
from .lanes import lanes_of
from .lookup import find_run
from .options import as_json, redis_url, run_id
from .output import STYLES, ago, clock, console, print_json, run_document, status, step_document, took

MOST_STEPS, MOST_CHARACTERS = 40, 300  # what is shown without --full


@click.command("show")
@run_id
@click.option("--full", is_flag=True, help="Every step, and values and tracebacks at their whole length.")
@redis_url
@as_json
def command(run_id: str, full: bool, redis_url: str | None, as_json: bool) -> None:
    """Show one run: its timeline, steps, attempts, outputs and errors.

    RUN is a run's id, the beginning of one, or `last`.
    """
    with connected(find_url(redis_url)) as store:
        runs = runs_of(store)
        run = runs.get(find_run(store, run_id))
        memos = _memos(store, run.id)
        history = runs.history(run.id)
        now = _server_time(store)
    if as_json:
        steps = [step_document(step, memos.get(step.id)) for step in run.steps]
        print_json({**run_document(run), "data": jsonable(run.event.data), "steps": steps})
        return
    page = _Page(console(), full)
    page.head(run)
    page.timeline(run, history, now)
    page.steps(run.steps, memos)


def _memos(store: Store, run_id: str) -> dict[str, Memo]:
    """What each step has left behind, by step id."""
    stored = cast(dict[bytes, bytes], store.client.hgetall(store.keys.memo(run_id)))
    return {id_of(text(key)): unpack_memo(memo) for key, memo in stored.items()}


def _server_time(store: Store) -> float:
    seconds, micros = store.client.time()
    return seconds + micros / 1e6


class _Page:
    def __init__(self, console: Console, full: bool) -> None:
        self._console = console
        self._full = full

    def _print(self, *parts: str | Text | tuple[str, str]) -> None:
        self._console.print(Text.assemble(*parts), soft_wrap=True)

    def _cut(self, text: str) -> str:
        if self._full or len(text) <= MOST_CHARACTERS:
            return text
        return f"{text[:MOST_CHARACTERS]}… ({len(text)} characters: --full)"

    def head(self, run: Run) -> None:
        self._print(("Run ", "bold"), (run.id, "bold"), f"  {run.app}/{run.function}  ", status(run))
        self._print(("event    ", "dim"), f"{run.event.name}  {run.event.id}")
        self._print(("data     ", "dim"), self._cut(_json(run.event.data)))
        ended = "" if run.ended is None else f", took {took((run.ended - run.created).total_seconds())}"
        started = run.created.astimezone().isoformat(sep=" ", timespec="seconds")
        self._print(("started  ", "dim"), f"{started} ({ago(run.created)}){ended}")
        if run.status == "completed":
            self._print(("result   ", "dim"), self._cut(_json(run.result)))
        if run.reason:
            self._print(("reason   ", "dim"), self._cut(run.reason))
        if run.error is not None:
            step = f"  in step {run.error.step}, attempt {run.error.attempt}" if run.error.step else ""
            self._print(("error    ", "dim"), (self._told(run.error), "red"), step)
            if not step:  # else the step shows it
                self._traceback(run.error.traceback, "         ")
        if run.parent:
            self._print(("parent   ", "dim"), f"run {run.parent}")
        if run.replay_of:
            self._print(("replays  ", "dim"), f"run {run.replay_of}")
        if run.replays:
            self._print(("replayed ", "dim"), f"as run {', '.join(run.replays)}")
        if run.retried:
            times = "once" if run.retried == 1 else f"{run.retried} times"
            self._print(("retried  ", "dim"), f"{times}, after it had failed")
        if run.dropped:
            self._print((f"… {run.dropped} of the oldest entries of its history were dropped", "yellow"))

    def timeline(self, run: Run, history: Sequence[HistoryEntry], now: float) -> None:
        start = run.created.timestamp()
        end = run.ended.timestamp() if run.ended else max(now, start)
        lanes = lanes_of(history, end)
        shown = lanes if self._full else lanes[-MOST_STEPS:]
        unicode = (self._console.encoding or "").lower().startswith("utf")
        self._print()
        self._earlier(len(lanes) - len(shown))
        for line in draw(shown, start, end, width=min(self._console.width, 160), unicode=unicode):
            self._print(line)

    def steps(self, steps: Sequence[StepRecord], memos: Mapping[str, Memo]) -> None:
        shown = steps if self._full else steps[-MOST_STEPS:]
        self._earlier(len(steps) - len(shown))
        for step in shown:
            self._print()
            said = (step.status, STYLES.get(step.status, ""))
            slept = f"  until {clock(step.until)}" if step.until else ""
            origin = (f"  {step.origin}", "dim") if step.origin else ""
            self._print((step.id, "bold"), "  ", said, slept, origin)
            if step.wait is not None:
                self._wait(step.wait)
            if step.child:
                self._print(("  invoked  ", "dim"), f"run {step.child}")
            if step.kind == "run":
                self._attempts(step)
            if step.kind in ("run", "wait", "invoke", "promise"):
                memo = memos.get(step.id)
                if memo is not None and memo.error is not None and step.kind in ("invoke", "promise"):
                    self._error(memo.error, "")
                if memo is not None and memo.error is None:
                    self._print(("    → ", "dim"), self._cut(_json(decode(memo.value, open=veiled))))

    def _wait(self, wait: WaitRecord) -> None:
        asked = "" if wait.match == "{}" else f"  match {self._cut(wait.match)}"
        since = "" if wait.since is None else f"  since {clock(wait.since)}"
        came = "timed out" if wait.timed_out else "" if wait.found is None else f"found {wait.found}"
        self._print(
            ("  waits for  ", "dim"), f"{wait.event}{asked}{since}", f"  at most {took(wait.timeout)}  ", (came, "bold")
        )

    def _attempts(self, step: StepRecord) -> None:
        for attempt in step.attempts:
            lasted = took(attempt.ended - attempt.started) if attempt.ended else "so far"
            queued = attempt.started - attempt.queued
            waited = f", queued for {took(queued)}" if queued >= 0.001 else ""
            self._print(
                (f"  attempt {attempt.number}  ", "dim"), (attempt.outcome, STYLES.get(attempt.outcome, "")),
                f"  at {clock(attempt.started)}, {lasted}{waited}", (f"  {attempt.worker}", "dim"),
            )  # fmt: skip
            if attempt.error is not None:
                self._error(attempt.error, f"  again at {clock(attempt.retry_at)}" if attempt.retry_at else "")

    def _error(self, error: ErrorInfo, then: str) -> None:
        self._print("    ", (self._told(error), "red"), then)
        self._traceback(error.traceback, "    ")

    def _told(self, error: ErrorInfo) -> str:
        told = f"{error.type}: {error.message}"
        return told if self._full else self._cut(told.partition("\n")[0])

    def _traceback(self, told: str, indent: str) -> None:
        """The last lines, unless all are wanted: they say which line of the user's it was."""
        lines = told.rstrip().splitlines()
        if not self._full and len(lines) > 8:
            lines = [f"… {len(lines) - 8} lines: --full", *lines[-8:]]
        for line in lines:
            self._print((f"{indent}{line}", "dim"))

    def _earlier(self, hidden: int) -> None:
        if hidden:
            self._print((f"… {hidden} earlier steps: --full", "dim"))


def _json(value: Any) -> str:
    return json.dumps(jsonable(value), ensure_ascii=False)
