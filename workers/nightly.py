"""A report for each customer at three every night, and one mail about all of them: cron, map, and what failed.

Run it with `flow dev workers.nightly:app`; `flow cron list` says when it ticks, `flow cron trigger report-all` does not wait
for the night.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from flowlib import App, Event, Step, StepFailed, cron, step_options
from workers.outbox import deliver

app = App("nightly")


@dataclass(frozen=True)
class Report:
    customer: str
    orders: int


@app.function(on=cron("0 3 * * *", tz="Europe/Berlin", missed="latest", overlap="skip"))
def report_all(event: Event[dict[str, Any]], step: Step) -> list[str]:
    """Reports on the day before the tick; the result names the customers for whom that failed."""
    tick: datetime = event.data["tick"]
    day = tick.date() - timedelta(days=1)
    customers = step.run("customers", customers_of, day)
    reports = step.map("report", Reporter(day), customers, limit=20, return_errors=True)
    failed = [name for name, report in zip(customers, reports, strict=True) if isinstance(report, StepFailed)]
    orders = sum(report.orders for report in reports if not isinstance(report, StepFailed))
    summary = f"{len(customers)} customers, {orders} orders, {len(failed)} failed"
    step.run("summary", deliver, f"summary-{day}", "office@example.com", summary)
    return failed


def customers_of(day: date) -> list[str]:
    """Who is to get a report: a query in real life. On Sundays the shops are closed."""
    return ["ada", "bert", "céline", "dmitri"][: 4 if day.isoweekday() < 7 else 1]


@dataclass(frozen=True)
class Reporter:
    """The report of one customer on that day, mailed: a step for each."""

    day: date

    @step_options(retries=3, timeout=timedelta(minutes=5))
    def __call__(self, customer: str) -> Report:
        report = Report(customer, orders=len(customer))
        deliver(f"report-{customer}-{self.day}", f"{customer}@example.com", f"{report.orders} orders on {self.day}")
        return report
