"""Wrong uses: each line that ends in `# error` is refused by mypy and by pyright, and no other. See test_typing.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flowlib import App, AsyncStep, Event, EventType, Future, Run, Step, cron, run_failed, step_options, trigger


@dataclass(frozen=True)
class Upload:
    key: str


@dataclass(frozen=True)
class Order:
    id: int


app = App("contacts")
uploaded = EventType("uploaded", Upload)


@step_options(retries=3)
def enrich(key: str, *, chunk: int = 100) -> list[str]:
    return [key] * chunk


async def store(rows: list[str]) -> int:
    return len(rows)


@app.function(on=uploaded)
def import_contacts(event: Event[Upload], step: Step) -> int:
    step.run("enrich", enrich, 7)  # error
    step.run("enrich", enrich)  # error
    step.run("enrich", enrich, "a", "b")  # error
    step.run("enrich", enrich, "a", chunk="2")  # error
    step.run("enrich", enrich, "a", chunks=2)  # error
    step.run("enrich", enrich, "a", retries=2)  # error
    step.run(7, enrich, "a")  # error
    step.run("enrich", enrich("a"))  # error
    step.run("enrich")  # error
    rows: list[int] = step.run("enrich", enrich, "a")  # error
    total: str = step.run("store", store, ["a"])  # error
    step.run("store", store, "a")  # error
    step.submit("enrich", enrich, 7)  # error
    words: Future[list[int]] = step.submit("enrich", enrich, "a")  # error
    step.submit("enrich", enrich, "a").upper()  # error
    step.map("enrich", enrich, [1, 2])  # error
    step.map("enrich", enrich, ["a"], limit="2")  # error
    step.gather(["a"])  # error
    step.log.info("%s", words)
    step.on_rollback(enrich, 7)  # error
    step.options(retries="3")  # error
    step.options(timeout="3s")  # error
    step.options(retires=3)  # error
    step.options(retries=3).run("enrich", enrich, 7)  # error
    step.sleep("nap", "an hour")  # error
    step.sleep(3600)  # error
    step.sleep_until("nap", 3600.0)  # error
    step.sleep_until(datetime(2027, 1, 1))  # error
    step.wait_for_event("more", uploaded, timeout="1h")  # error
    step.invoke("child", takes_an_order, {"id": 7})  # error
    step.promise("ok", as_=bool, timeout="1h")  # error
    step.run("enrich", enrich, step.promise("ok", as_=bool).result())  # error
    step.wait_for_event("more", uploaded, match="key")  # error
    step.wait_for_event("more", uploaded, since=3600)  # error
    step.wait_for_event("more", uploaded, when=lambda each: each.data.id == 1)  # error
    step.wait_for_event(uploaded)  # error
    step.wait_for_event("more", uploaded).data  # error
    order: Event[Order] | None = step.wait_for_event("order", uploaded)  # error
    step.log.info("%s", order)
    event.data.id  # error
    event.data = Upload("x")  # error
    return len(rows) + len(total)


@app.function(on=uploaded, name="async")
async def import_async(event: Event[Upload], step: AsyncStep) -> int:
    await step.run("enrich", enrich, 7)  # error
    await step.run("store", store, [1])  # error
    await step.run("store", store)  # error
    rows: list[int] = await step.run("enrich", enrich, "a")  # error
    total: str = await step.run("store", store, ["a"])  # error
    late: list[str] = step.run("enrich", enrich, "a")  # error
    await step.sleep("nap", "an hour")  # error
    await step.options(retries="3").run("enrich", enrich, "a")  # error
    return len(rows) + len(total) + len(late)


def takes_an_order(event: Event[Order], step: Step) -> None: ...
def takes_async(event: Event[Upload], step: AsyncStep) -> None: ...
def takes_nothing() -> None: ...
def takes_an_event(event: Event[Upload]) -> None: ...
def takes_the_data(data: Upload, step: Step) -> None: ...
def takes_more(event: Event[Upload], step: Step, more: int) -> None: ...


app.function(on=uploaded)(takes_an_order)  # error
app.function(on=uploaded)(takes_async)  # error
app.function(on=uploaded)(takes_nothing)  # error
app.function(on=uploaded)(takes_an_event)  # error
app.function(on=uploaded)(takes_the_data)  # error
app.function(on=uploaded)(takes_more)  # error
app.function(on="uploaded")(takes_an_order)  # error
app.function(on=7)  # error
app.function(on=cron("@daily"))(takes_an_order)  # error
cron(5)  # error
cron("@daily", "Europe/Berlin")  # error
cron("@daily", tz=1)  # error
cron("@daily", missed="none")  # error
cron("@daily", overlap=True)  # error
cron("@daily", jitter="5m")  # error
app.function()  # error
app.function(on=uploaded, retries="3")  # error
app.function(on=uploaded, retry=3)  # error
app.function(on=uploaded, run_timeout="1h")  # error
app.function(on=uploaded, cancel_on=7)  # error
app.function(on=uploaded, on_failure=takes_an_order)  # error
app.function(on=trigger(uploaded, when=lambda event: event.data.id == 1))  # error
app.function(on=run_failed)(takes_an_order)  # error
app.function(on=uploaded, idempotency=3600)  # error

uploaded(Order(1))  # error
uploaded({"key": "a"})  # error
uploaded(Upload("a"), id=7)  # error
uploaded(Upload("a"), ts="today")  # error
app.send("uploaded")  # error
app.send({"key": "a"})  # error
app.send(Upload("a"))  # error
one: list[str] = app.send(uploaded(Upload("a")))  # error
many: str = app.send([uploaded(Upload("a"))])  # error

run: Run = app.runs.get(7)  # error
app.runs.list(state="failed")  # error
app.runs.result(run.id, timeout="5s")  # error
app.runs.cancel()  # error
app.runs.retry()  # error
app.runs.replay(run.id, "store")  # error
app.runs.replay(run.id, set=["enrich"])  # error
fine: Any = app.runs.result(run.id)


@step_options(retries="3")  # error
def flaky() -> None: ...


@step_options(delay=3)  # error
def slow() -> None: ...
