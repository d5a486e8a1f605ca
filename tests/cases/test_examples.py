"""The examples in workers/, run as they are; days pass when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import workers
from flowlib import App, Event, Run
from flowlib.codec import encode
from flowlib.schedule import CRON_EVENT, event_data
from flowlib.testing import check_invariants
from flowlib.worker import FlowWorker
from tests.patience import PATIENCE, until
from workers import approvals, nightly, onboarding, orders, outbox

EXAMPLES = ["onboarding", "nightly", "orders", "approvals"]


class Office:
    """An example's app with a worker, and the messages that it has sent, by name."""

    def __init__(self, app: App, url: str, outbox: Path) -> None:
        self.app = app.connect(url)
        self.outbox = outbox
        self.worker = FlowWorker((), app=app, threads=2)
        self._thread = threading.Thread(target=self.worker.work, daemon=True)
        self._thread.start()

    def send(self, event: Event[Any]) -> str:
        sent = self.app.send(event)
        return str(until(lambda: self.app.runs.of_event(sent))[0])

    def tick(self, function: str, tick: datetime) -> str:
        """As `flow cron trigger` does."""
        expression, zone = (cron := self.app.functions[function].crons[0]).expression, cron.tz
        data = event_data(self.app.name, function, expression, zone, tick)
        self.app.store.send_events([("tick", CRON_EVENT, encode(data), round(tick.timestamp() * 1000), "")])
        return str(until(lambda: self.app.runs.of_event("tick"))[0])

    def waits(self, run: str, step: str) -> None:
        until(
            lambda: any(
                one.id == step and one.status in ("waiting", "sleeping") for one in self.app.runs.get(run).steps
            )
        )

    def pass_time(self) -> None:
        """All that is to happen later happens now."""
        client, timers = self.app.store.client, self.app.store.keys.timers
        due: dict[Any, float] = dict.fromkeys(client.zrange(timers, 0, -1), 1.0)
        if due:
            client.zadd(timers, due, xx=True)
        client.publish(self.app.store.keys.timers_channel, "1")

    def ended(self, run: str, hurry: bool = True) -> Run:
        def is_over() -> bool:
            if hurry:
                self.pass_time()
            return self.app.runs.get(run).finished

        until(is_over)
        return self.app.runs.get(run)

    @property
    def sent(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in sorted(self.outbox.iterdir()) if file.name[0] != "."}

    def close(self) -> None:
        self.worker.stop()
        self.app.send(Event("wake/up", None))
        self.app.store.client.publish(self.app.store.keys.timers_channel, "")
        self._thread.join(PATIENCE)
        assert check_invariants(self.app.store) == []
        self.app.store.close()


@pytest.fixture
def office(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[App], Office]]:
    monkeypatch.setenv("OUTBOX", str(tmp_path / "outbox"))
    opened: list[Office] = []

    def open_office(app: App) -> Office:
        (tmp_path / "outbox").mkdir()
        opened.append(Office(app, redis_url, tmp_path / "outbox"))
        return opened[-1]

    yield open_office
    for each in opened:
        each.close()


ADA = onboarding.Account("ada", "ada@example.com")


def test_a_user_who_never_answers_is_reminded_once(office: Callable[[App], Office]) -> None:
    at = office(onboarding.app)
    run = at.ended(at.send(onboarding.signed_up(ADA)))
    assert (run.status, run.result) == ("completed", "silent")
    assert list(at.sent) == ["ada-reminder", "ada-welcome"]


def test_a_user_who_confirms_gets_tips_until_there_is_a_project(office: Callable[[App], Office]) -> None:
    at = office(onboarding.app)
    run = at.send(onboarding.signed_up(ADA))
    at.waits(run, "answer")
    at.app.send(onboarding.confirmed(ADA))
    at.waits(run, "day-1")
    at.waits(run, "project")
    at.app.send(onboarding.first_project(ADA))
    ended = at.ended(run, hurry=False)
    assert (ended.status, ended.result) == ("completed", "active")
    assert list(at.sent) == ["ada-welcome", "ada-well-done"]


def test_onboarding_ends_with_the_account(office: Callable[[App], Office]) -> None:
    at = office(onboarding.app)
    run = at.send(onboarding.signed_up(ADA))
    at.waits(run, "answer")
    at.app.send(onboarding.closed(ADA))
    assert at.ended(run, hurry=False).status == "cancelled"


def test_the_nightly_report_is_sent_to_each_customer_and_tells_who_failed(
    office: Callable[[App], Office], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deliver(key: str, to: str, text: str) -> None:
        if to.startswith("bert"):
            raise ConnectionError("no such mailbox")
        outbox_deliver(key, to, text)

    outbox_deliver = outbox.deliver
    monkeypatch.setattr(nightly, "deliver", deliver)
    at = office(nightly.app)
    run = at.ended(at.tick("report-all", datetime(2026, 11, 24, 2, tzinfo=UTC)))
    assert (run.status, run.result) == ("completed", ["bert"])
    assert len(at.sent) == 4


def test_an_order_that_goes_through_is_charged_once(office: Callable[[App], Office]) -> None:
    at = office(orders.app)
    run = at.ended(at.send(orders.placed(orders.Order("o1", "ada@example.com", "book", 4200))))
    assert (run.status, run.result) == ("completed", "P-o1")
    assert list(at.sent) == ["charged-o1", "reserved-o1", "shipped-o1", "thanks-o1"]


def test_an_order_that_cannot_be_shipped_is_refunded_and_its_stock_released(office: Callable[[App], Office]) -> None:
    at = office(orders.app)
    run = at.ended(at.send(orders.placed(orders.Order("o2", "ada@example.com", "unicorn", 4200))))
    assert run.status == "failed"
    assert list(at.sent) == ["charged-o2", "refunded-o2", "released-o2", "reserved-o2"]


@pytest.mark.parametrize(
    ("says", "outcome"), [(True, "paid"), (False, "refused"), ("no", "refused"), (None, "forgotten")]
)
def test_a_claim_is_what_the_holder_of_the_token_says(
    office: Callable[[App], Office], says: bool | str | None, outcome: str
) -> None:
    at = office(approvals.app)
    run = at.send(approvals.claimed(approvals.Claim("c1", "ada@example.com", 9900)))
    at.waits(run, "decision")
    if isinstance(says, str):
        at.app.promises.reject(at.sent["ask-c1"].split()[-1], says)
    elif says is not None:
        at.app.promises.resolve(at.sent["ask-c1"].split()[-1], says)
    ended = at.ended(run, hurry=says is None)
    assert (ended.status, ended.result) == ("completed", outcome)
    assert f"{outcome}-c1" in at.sent


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read_in_a_minute(name: str) -> None:
    source = (Path(workers.__file__).parent / f"{name}.py").read_text()
    assert len(source.splitlines()) <= 60
