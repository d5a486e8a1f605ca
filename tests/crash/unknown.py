"""The app of `known`, deployed without its function."""

from __future__ import annotations

from typing import Any

from flowlib import App, Event, Step

app = App("deployed", retries=0)


@app.function(on="crash.other")
def other(event: Event[dict[str, Any]], step: Step) -> None: ...
