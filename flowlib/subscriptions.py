"""Which of an app's functions an event starts. The only place in which code of the user's decides about an event.

Knows no Redis and no clock.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from .codec import decode
from .errors import PayloadError
from .function import Function, in_text, subscribed_by
from .model import ENDINGS, Event
from .schedule import CRON_EVENT
from .sealed import Open, Unopened, lenient
from .triggers import Trigger
from .wait import digest_of, value_at

log = logging.getLogger("flowlib.dispatch")

OTHER = "_other"  # events that are nobody's, in the metrics: there may be any number of names


class Started(NamedTuple):
    """What an event starts; `label` is its name in metrics, `refused` are functions whose condition raised, and what."""

    label: str
    functions: list[Function]
    refused: list[tuple[str, str]]


class Subscriptions:
    def __init__(self, functions: Iterable[Function], open: Open | None = None) -> None:
        self._open = open  # for data that is sealed
        self._on = subscribed_by(functions := list(functions))
        self.on = lru_cache(1000)(self._listeners_of)
        self._by_name: dict[str, list[tuple[Function, Trigger[Any]]]] = {}
        self._by_noun: list[tuple[Function, Trigger[Any]]] = []
        for function in functions:
            for trigger in (*function.triggers, *_called(function)):
                if trigger.is_wild:
                    self._by_noun.append((function, trigger))
                else:
                    self._by_name.setdefault(trigger.name, []).append((function, trigger))

    def started_by(self, event: tuple[str, str, bytes, int]) -> Started:
        """An event as it is read: id, name, data, ts in ms. Each function is there once, whichever triggers fit."""
        event_id, name, *_ = event
        named = self._by_name.get(name, ())
        found = [*named, *(each for each in self._by_noun if each[1].takes(name))]
        started: dict[str, Function] = {}
        refused: list[tuple[str, str]] = []
        for function, trigger in found:
            try:
                if function.name not in started and (
                    trigger.when is None or trigger.when(_as(event, trigger, self._open))
                ):
                    started[function.name] = function
            except Unopened as trouble:  # that is no answer: the event comes again
                raise trouble.error from None
            except Exception as error:
                log.exception("event %r: the condition of %s on it raised: it starts nothing", event_id, function.name)
                refused.append((function.name, f"{type(error).__name__}: {error}"[:1000]))
        return Started(found[0][1].name if found else OTHER, list(started.values()), refused)

    def _listeners_of(self, name: str) -> tuple[str, ...]:
        """Functions that are on events of that name, a line each, and what to look for to find those that others know."""
        name = in_text(name)
        places = [name, *(name[: at + 1] + "*" for at, each in enumerate(name) if each == "/")]
        functions = {function for place in places for function in self._on.get(place, ())}
        return "\n".join(["", *sorted(functions), ""]), *places


def cancels_of(function: Function, data: Any) -> list[tuple[str, str, str]]:
    """Which events cancel a run that one with these data starts: name, fields and digest, as waits have them."""
    found = []
    for each in function.cancel_on:
        try:
            values = [value_at(own, data) for _, own in each.fields]
        except KeyError:
            continue
        if None not in values:
            fields = json.dumps([theirs for theirs, _ in each.fields])
            found.append((each.name, fields, digest_of(fields, values)))
    return found


def _as(event: tuple[str, str, bytes, int], trigger: Trigger[Any], open: Open | None) -> Event[Any]:
    event_id, name, data, stamp = event
    if name.startswith(ENDINGS):
        open = lenient(open)
    try:
        clear = decode(data, trigger.type, where="data", open=open)
    except PayloadError:
        raise
    except Exception as error:
        raise Unopened(error) from error
    return Event(name, clear, event_id, datetime.fromtimestamp(stamp / 1000, UTC))


def _called(function: Function) -> list[Trigger[Any]]:
    """`flow cron trigger`; what ticks start is no event of the stream."""

    def is_meant(event: Event[Any]) -> bool:
        return (event.data.get("app"), event.data.get("function")) == (function.app, function.name)

    return [Trigger(CRON_EVENT, dict, is_meant)] if function.crons else []
