"""Runs of every temper for the storm: short ones, some that fail and are tried again, some that sleep, some that compensate.

Every run returns 4, whatever befalls it. Steps of `prompt` are over before a worker waits for their memo to be recorded.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from flowlib import App, AsyncStep, Event, Limits, NonRetriable, Step, StepFailed

from .ledger import noted

app = App("mixture", retries=3, backoff=0.05)
PATIENT = Limits(losses=50)  # the storm kills at random: nobody is to conclude that it was the step's fault

KINDS = ("short", "flaky", "sleepy", "compensating", "async")
SIDE_BY_SIDE = ("forking", "joining", "grouping", "mapping", "racing", "hearing")
STORMY_KINDS = (
    *KINDS,
    "prompt",
    "prompt",
    "prompt",
    "crossing",
    "long",
    "deciding",
    "telling",
    "asking",
    "noun/made",
    *SIDE_BY_SIDE,
)
ASIDE = "aside"  # a queue beside the default one


def work(step: Step, id: str, number: int) -> int:
    with noted(step, id):
        time.sleep(0.004)
        return number + 1


def work_promptly(step: Step | AsyncStep, id: str, number: int) -> int:
    with noted(step, id):
        return number + 1


def work_long(step: Step | AsyncStep, id: str, number: int) -> int:
    with noted(step, id):
        time.sleep(random.uniform(0.2, 1.0))
        return number + 1


async def work_long_async(step: AsyncStep, id: str, number: int) -> int:
    with noted(step, id):
        await asyncio.sleep(random.uniform(0.2, 1.0))
        return number + 1


def work_at_second_try(step: Step, id: str, number: int) -> int:
    with noted(step, id):
        if step.attempt == 1:
            raise ConnectionError("the first try fails")
        return number + 1


def refuse(step: Step, id: str) -> int:
    with noted(step, id):
        raise NonRetriable("never")


async def work_async(step: AsyncStep, id: str, number: int) -> int:
    with noted(step, id):
        await asyncio.sleep(0.004)
        return number + 1


@app.function(on="short", limits=PATIENT)
def short(event: Event[dict[str, Any]], step: Step) -> int:
    number = 0
    for each in range(4):
        number = step.run(f"s{each}", work, step, f"s{each}", number)
    return number


@app.function(on="flaky", limits=PATIENT)
def flaky(event: Event[dict[str, Any]], step: Step) -> int:
    number = step.run("a", work, step, "a", 0)
    number = step.run("b", work_at_second_try, step, "b", number)
    number = step.run("c", work, step, "c", number)
    return step.run("d", work_at_second_try, step, "d", number)


@app.function(on="sleepy", limits=PATIENT)
def sleepy(event: Event[dict[str, Any]], step: Step) -> int:
    number = 0
    for each in range(4):
        number = step.run(f"s{each}", work, step, f"s{each}", number)
        step.sleep(f"nap{each}", 0.05 * each)
    return number


@app.function(on="compensating", limits=PATIENT)
def compensating(event: Event[dict[str, Any]], step: Step) -> int:
    number = step.run("a", work, step, "a", 0)
    number = step.run("b", work, step, "b", number)
    try:
        number = step.run("refused", refuse, step, "refused")
    except StepFailed:
        number = step.run("c", work, step, "c", number)
    return step.run("d", work, step, "d", number)


@app.function(on="async", name="async", limits=PATIENT)
async def asynchronous(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    number = 0
    for each in range(4):
        number = await step.run(f"s{each}", work_async, step, f"s{each}", number)
    return number


@app.function(on="prompt", limits=PATIENT)
def prompt(event: Event[dict[str, Any]], step: Step) -> int:
    number = -6
    for each in range(10):
        number = step.run(f"s{each}", work_promptly, step, f"s{each}", number)
    return number


def keep(step: Step | AsyncStep, id: str, value: str) -> str:
    with noted(step, id):
        return value


@app.function(on="deciding", limits=PATIENT)
def deciding(event: Event[dict[str, Any]], step: Step) -> int:
    """4, if what it has decided by chance stays so."""
    asked = [step.uuid()]
    kept = [step.run("keep0", keep, step, "keep0", str(asked[0]))]
    for each in range(1, 4):
        asked.append(step.uuid())
        face = step.options(queue=ASIDE) if each == 2 else step
        kept.append(face.run(f"keep{each}", keep, step, f"keep{each}", str(asked[each])))
    return sum(str(one) == other for one, other in zip(asked, kept, strict=True))


@app.function(on="telling", limits=PATIENT)
def telling(event: Event[dict[str, Any]], step: Step) -> int:
    """Its event has another id at each try, so that two that were sent would start two runs."""
    number = step.run("a", work_promptly, step, "a", 0)
    step.send_event("tell", Event("told", {}, id=f"{step.run_id}:{random.getrandbits(64):x}"))
    number = step.run("b", work_promptly, step, "b", number)
    number = step.run("c", work, step, "c", number)
    return step.run("d", work_promptly, step, "d", number)


@app.function(on="told", limits=PATIENT)
def told(event: Event[dict[str, Any]], step: Step) -> int:
    return step.run("a", work_promptly, step, "a", 3)


@app.function(on="asking", limits=PATIENT)
def asking(event: Event[dict[str, Any]], step: Step) -> int:
    """4, if it hears the answer, that may come before it listens."""
    number = step.run("a", work_promptly, step, "a", 0)
    asked = Event("asked", {"run": step.run_id, "pause": step.random() / 10}, id=f"{step.run_id}:asked")
    step.send_event("ask", asked)
    number = step.run("b", work, step, "b", number)
    answer = step.wait_for_event("answer", "answered", match={"run": step.run_id}, timeout=600, since=event.ts)
    number = step.run("c", work_promptly, step, "c", number)
    return number if answer is None else step.run("d", work_promptly, step, "d", number)


@app.function(on="asked", limits=PATIENT)
def asked(event: Event[dict[str, Any]], step: Step) -> int:
    step.sleep("think", event.data["pause"])
    step.send_event("answer", Event("answered", {"run": event.data["run"]}))
    return step.run("a", work_promptly, step, "a", 3)


@app.function(on="crossing", limits=PATIENT)
def crossing(event: Event[dict[str, Any]], step: Step) -> int:
    """From queue to queue and back."""
    number = 0
    for each in range(4):
        face = step.options(queue=ASIDE) if each % 2 else step
        number = face.run(f"s{each}", work_promptly, step, f"s{each}", number)
    return number


@app.function(on="long", limits=PATIENT, queue=ASIDE)
async def long(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    number = await step.run("a", work_long, step, "a", 0)
    number = await step.run("b", work_long_async, step, "b", number)
    number = await step.run("c", work_async, step, "c", number)
    return await step.run("d", work_async, step, "d", number)


@app.function(on="forking", limits=PATIENT)
def forking(event: Event[dict[str, Any]], step: Step) -> int:
    a = step.submit("a", work, step, "a", 0)
    b = step.submit("b", work_at_second_try, step, "b", 0)
    c = step.options(queue=ASIDE).submit("c", work_promptly, step, "c", 0)
    nap = step.timer("nap", 0.03)
    number = a.result() + sum(step.gather(b, c))
    nap.result()
    return step.run("d", work_promptly, step, "d", number)


@app.function(on="joining", limits=PATIENT)
async def joining(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    async def branch(name: str) -> int:
        number = await step.run(f"{name}1", work_async, step, f"{name}1", 0)
        return await step.run(f"{name}2", work_promptly, step, f"{name}2", number)

    return sum(await asyncio.gather(branch("x"), branch("y")))


@app.function(on="grouping", limits=PATIENT)
async def grouping(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    async with asyncio.TaskGroup() as group:
        one = group.create_task(step.run("a", work_async, step, "a", 0))
        other = group.create_task(step.run("b", work_promptly, step, "b", 0))
    number = await step.run("c", work_promptly, step, "c", one.result() + other.result())
    return await step.run("d", work_promptly, step, "d", number)


@app.function(on="hearing", limits=PATIENT)
async def hearing(event: Event[dict[str, Any]], step: AsyncStep) -> int:
    """4, if it hears the second of the three that come, whichever kind that is, and keeps to it."""
    kinds = ["heard", "overheard"] if step.random() < 0.5 else ["overheard", "heard"]
    sent = [Event(kinds[n % 2], {"run": step.run_id, "n": n}, id=f"{step.run_id}:heard-{n}") for n in range(3)]
    await step.send_event("say", sent)
    mine = {"run": step.run_id}
    found = await step.wait_for_any(
        "any", "heard", "overheard", match=mine, when=lambda each: each.data["n"] == 1, timeout=600, since=event.ts
    )
    kept = await step.run("keep", keep, step, "keep", "" if found is None else found.id)
    number = await step.run("a", work_promptly, step, "a", 2)
    return await step.run("b", work_promptly, step, "b", number) if kept == f"{step.run_id}:heard-1" else 0


@app.function(on="noun/*", limits=PATIENT)
def of_a_noun(event: Event[dict[str, Any]], step: Step) -> int:
    number = step.run("a", work_promptly, step, "a", 2)
    return step.run("b", work, step, "b", number)


@app.function(on="mapping", limits=PATIENT)
def mapping(event: Event[dict[str, Any]], step: Step) -> int:
    def each(number: int) -> int:
        return work_promptly(step, f"each[{number}]", 0)

    return sum(step.map("each", each, range(4), limit=2))


@app.function(on="racing", limits=PATIENT)
def racing(event: Event[dict[str, Any]], step: Step) -> int:
    """4, if the winner stays the winner."""
    slow, quick = step.submit("slow", work_long, step, "slow", 0), step.timer("quick", 0.05)
    number = 1 if step.first(slow, quick) is quick else slow.result()
    kept = step.run("kept", work_promptly, step, "kept", number)
    again = 1 if step.first(step.submit("a", work, step, "a", 0), step.timer("b", 60)) is not quick else 0
    return kept + step.run("last", work_promptly, step, "last", again)
