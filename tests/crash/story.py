"""The run that workers are killed in: five steps, one of them tried twice, a sleep, and an error that is caught."""

from __future__ import annotations

from typing import Any

from flowlib import App, Event, NonRetriable, Step, StepFailed

from .ledger import noted

app = App("story", retries=3, backoff=0.05)

TOLD = ["first", "flaky", "doomed failed", "last"]
STEPS = ["first", "flaky", "nap", "doomed", "last"]


def say(step: Step, word: str) -> str:
    with noted(step, word):
        return word


def say_at_second_try(step: Step, word: str) -> str:
    with noted(step, word):
        if step.attempt == 1:
            raise ConnectionError("the first try fails")
        return word


def refuse(step: Step, word: str) -> str:
    with noted(step, word):
        raise NonRetriable(f"{word} failed")


@app.function(on="crash.story")
def story(event: Event[dict[str, Any]], step: Step) -> list[str]:
    told = [step.run("first", say, step, "first"), step.run("flaky", say_at_second_try, step, "flaky")]
    step.sleep("nap", 0.1)
    try:
        step.run("doomed", refuse, step, "doomed")
    except StepFailed as failed:
        told.append(failed.message)
    return [*told, step.run("last", say, step, "last")]
