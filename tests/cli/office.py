"""An app with schedules that never tick while a test runs, but at New Year."""

from __future__ import annotations

from typing import Any

from flowlib import App, Event, Step, cron

app = App("office")


@app.function(on=cron("0 3 1 1 *", tz="Europe/Berlin", missed="latest"))
def report(event: Event[dict[str, Any]], step: Step) -> str:
    return str(event.data["tick"].isoformat())


@app.function(on=["office/post", cron("@monthly")])
def clean(event: Event[Any], step: Step) -> None: ...


@app.function(on="office/post")
def by_post(event: Event[Any], step: Step) -> None: ...
