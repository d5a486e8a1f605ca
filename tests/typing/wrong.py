"""Wrong uses: each line that ends in `# error` is refused by mypy and by pyright, and no other. See test_typing.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import flowlib
from flowlib import (
    App,
    AsyncStep,
    Event,
    EventType,
    Future,
    Middleware,
    Run,
    Step,
    cron,
    matching,
    middleware,
    run_failed,
    step_options,
    trigger,
)
from flowlib.middleware import Encryption


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
    step.wait_for_any("any", 7)  # error
    step.wait_for_any("any", uploaded, uploaded, timeout="1h")  # error
    step.wait_for_any("any", uploaded, uploaded).data  # error
    step.expect_event("more", uploaded, timeout="1h")  # error
    later: Future[Event[Order] | None] = step.expect_event("later", uploaded)  # error
    step.timer("nap", "an hour")  # error
    step.first(step.now())  # error
    step.first(later).asks  # error
    child: str = step.invoke("child", counts, Upload("x"))  # error
    step.start("child", takes_an_order, {"id": 7})  # error
    begun: Future[str] = step.start("begun", counts, Upload("x"))  # error
    step.start("child", counts, Upload("x"), timeout="1h")  # error
    step.send_event("tell", {"key": "a"})  # error
    one: list[str] = step.send_event("tell", uploaded(Upload("a")))  # error
    step.patched(7)  # error
    step.uuid().upper()  # error
    step.random().upper()  # error
    step.log.info(7, oops=1)  # error
    step.run_id = "x"  # error
    step.attempt = 2  # error
    step.log.info("%s", [child, begun, one])
    event.data.id  # error
    flowlib.Stepp  # error
    middleware.Encrypted  # error
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
    await step.sleep_until("nap", 3600.0)  # error
    await step.map("enrich", enrich, [1, 2])  # error
    await step.map("enrich", enrich, ["a"], limit="2")  # error
    await step.wait_for_event("more", uploaded, timeout="1h")  # error
    await step.wait_for_any("any", 7)  # error
    await step.wait_for_any("any", uploaded, uploaded, timeout="1h")  # error
    await step.wait_for_event("more", uploaded, when=lambda each: each.data.id == 1)  # error
    order: Event[Order] | None = await step.wait_for_event("order", uploaded)  # error
    await step.invoke("child", takes_an_order, {"id": 7})  # error
    child: str = await step.invoke("child", counts, Upload("x"))  # error
    step.promise("ok", as_=bool, timeout="1h")  # error
    await step.run("enrich", enrich, await step.promise("ok", as_=bool).result())  # error
    await step.send_event("tell", {"key": "a"})  # error
    step.on_rollback(enrich, 7)  # error
    step.patched(7)  # error
    step.submit("enrich", enrich, "a")  # error
    step.now().upper()  # error
    step.uuid().upper()  # error
    step.random().upper()  # error
    step.log.info(7, oops=1)  # error
    step.run_id = "x"  # error
    step.attempt = 2  # error
    return len(rows) + len(total) + len(late) + len([child, order])


def counts(event: Event[Upload], step: Step) -> int:
    return len(event.data.key)


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

app.call(counts, Order(1))  # error
app.call(counts)  # error
word: str = app.call(counts, Upload("a")).result()  # error
app.call(counts, Upload("a")).result(timeout="30s")  # error
app.promises.resolve(7, True)  # error
app.promises.reject("token", reason=7)  # error
app.connect(6379)  # error
matching(7, "key")  # error
matching(uploaded, 7)  # error
App("x", middleware=[Middleware])  # error
App("x", middleware=Middleware())  # error
App("x", retries="3")  # error
Encryption(b"key")  # error


async def produce() -> None:
    await app.send_async("uploaded")  # error
    many: str = await app.send_async([uploaded(Upload("a"))])  # error
    number: str = await app.call(counts, Upload("a")).result_async()  # error
    print(many, number)


class Wrong(Middleware):
    def send(self, event: str, meta: dict[str, str]) -> Any: ...  # error
    def start(self, run: str) -> Any: ...  # error
    def call(self, run: str) -> Any: ...  # error
    def step(self, step: str) -> Any: ...  # error
    def encode(self, data: str) -> bytes | None: ...  # error
    def decode(self, payload: bytes) -> str: ...  # error


run: Run = app.runs.get(7)  # error
app.runs.history(7)  # error
app.runs.outputs(7)  # error
app.runs.of_event(7)  # error
run.status = "failed"  # error
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
