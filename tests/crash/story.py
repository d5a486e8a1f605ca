"""The run that workers are killed in: steps, one of them tried twice, a sleep, waits, and an error that is caught.

The first wait is for an event that the run has sent itself, the others are for what the test sends when it sees them; the
last one asks.
"""

from __future__ import annotations

from typing import Any

from flowlib import App, Event, Step, StepFailed

from .bodies import refuse, say, say_at_second_try

app = App("story", retries=3, backoff=0.05)

TOLD = ["first", "flaky", "told", 1, 2, "doomed failed", "last"]
STEPS = ["first", "flaky", "nap", "tell", "told", "answer", "choice", "doomed", "last"]
ANSWERS = {"answer": [1], "choice": [1, 2]}  # what the test says at each wait


@app.function(on="crash.story")
def story(event: Event[dict[str, Any]], step: Step) -> list[Any]:
    told: list[Any] = [step.run("first", say, step, "first"), step.run("flaky", say_at_second_try, step, "flaky")]
    step.sleep("nap", 0.1)
    step.send_event("tell", Event("crash.told", {"run": step.run_id}))
    heard = step.wait_for_event("told", "crash.told", match={"run": step.run_id}, timeout=60, since=event.ts)
    told.append("told" if heard else "not told")
    answer = step.wait_for_event("answer", "crash.answer", match={"to.run": step.run_id}, timeout=60)
    choice = step.wait_for_event("choice", "crash.choice", when=lambda each: each.data["n"] > 1, timeout=60)
    told += [each and each.data["n"] for each in (answer, choice)]
    try:
        step.run("doomed", refuse, step, "doomed")
    except StepFailed as failed:
        told.append(failed.message)
    return [*told, step.run("last", say, step, "last")]
