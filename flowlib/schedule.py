"""`cron(...)`: when a function is due, as a pure function of the time. The only module that knows `cronsim`.

Knows no Redis and no clock: what was decided last and what time it is arrive as arguments, so that every worker comes to the
same answer. Ticks are in UTC; a zone's summer time is right as in Debian's cron: a tick at a time of day that there is
not comes once, right after the gap, and one at a time that there is twice comes the first time. Where the minutes or the
hours begin with `*` it is real time that counts: every hour has its tick, whatever the clocks on the wall do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice, takewhile
from typing import Any, Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .errors import ConfigError

CRON_EVENT = "flow/cron"
SKIP: Final = "skip"
LATEST: Final = "latest"
ALL: Final = "all"
ALLOW: Final = "allow"
Missed = Literal["skip", "latest", "all"]
Overlap = Literal["allow", "skip"]

PUNCTUAL = timedelta(minutes=1)  # what is later has missed its time: a worker that is restarted misses nothing
MOST = 1000  # ticks that are decided in one go, so that a long outage holds nobody up

_NICKNAMES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)


class Decision(NamedTuple):
    """What becomes of the ticks up to this one: it starts a run, or is passed over, too; `missed` are passed over."""

    tick: datetime
    starts: bool
    missed: int


@dataclass(frozen=True)
class Cron:
    """What `cron` makes; nothing is checked before a function is declared, whose name the error then has."""

    expression: str
    tz: str = "UTC"
    missed: Missed = SKIP
    overlap: Overlap = ALLOW
    jitter: float = 0.0

    def check(self, where: str) -> Cron:
        """The same, its expression as it is shown. Raises ConfigError."""
        for name, known in (("missed", (SKIP, LATEST, ALL)), ("overlap", (ALLOW, SKIP))):
            if (value := getattr(self, name)) not in known:
                raise ConfigError(f"{where}: cron: {name} must be one of {', '.join(known)}, got {value!r}")
        jitter: Any = self.jitter
        if not isinstance(jitter, (int, float)) or isinstance(jitter, bool) or not 0 <= jitter <= 86_400:
            raise ConfigError(f"{where}: cron: jitter must be a timedelta or seconds, from 0 to a day, got {jitter!r}")
        expression: Any = self.expression
        if not isinstance(expression, str):
            raise ConfigError(f"{where}: cron takes an expression like '0 3 * * *', got {expression!r}")
        checked = replace(self, expression=" ".join(expression.split()))
        checked._check_ticks(where)
        return checked

    def _check_ticks(self, where: str) -> None:
        try:
            self.zone  # noqa: B018 - it is made here
        except Exception:
            hint = "a name like 'Europe/Berlin' (a system without zones needs the package tzdata)"
            raise ConfigError(f"{where}: cron: there is no time zone {self.tz!r}: {hint}") from None
        try:
            next(CronSim(self._fields, _SOME_DAY))
        except CronSimError as error:
            remedy = "minute hour day month weekday, as in '0 3 * * *', a second before them, or @daily and the like"
            raise ConfigError(f"{where}: cron: {self.expression!r}: {str(error).lower()}: {remedy}") from None
        except StopIteration:
            raise ConfigError(f"{where}: cron: {self.expression!r} names no day that there ever is") from None

    @property
    def name(self) -> str:
        """What tells it from a function's other schedules, and from what it was before it was changed."""
        return f"{self.expression} {self.tz}"

    @cached_property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.tz)

    @property
    def _fields(self) -> str:
        return _NICKNAMES.get(self.expression.lower(), self.expression)

    @cached_property
    def _by_the_wall(self) -> bool:
        minute, hour = self._fields.split()[-5:-3]
        return not minute.startswith("*") and not hour.startswith("*")

    def ticks(self, after: datetime) -> Iterator[datetime]:
        """All ticks after a time, in order, without an end; ends only where cronsim's years do."""
        local = after.astimezone(self.zone)
        found = CronSim(self._fields, local.replace(tzinfo=None) if self._by_the_wall else local)
        for each in found:
            tick = _on_the_wall(each, self.zone) if self._by_the_wall else each.astimezone(UTC)
            if tick > after:  # cronsim may begin with one of an hour that is there twice, which has passed
                yield tick
                after = tick

    def due(self, function: str, tick: datetime) -> datetime:
        """When a tick is to start its run: by chance within the jitter, and for every worker by the same."""
        if not self.jitter:
            return tick
        drawn = hashlib.sha256(f"{function}\0{self.name}\0{tick.timestamp():.0f}".encode()).digest()
        share = int.from_bytes(drawn[:8]) / 2**64
        return tick + timedelta(milliseconds=int(1000 * self.jitter * share))

    def decide(self, function: str, since: datetime, now: datetime) -> list[Decision]:
        """What becomes of the ticks after `since` that are due: in their order, so none overtakes another by its jitter.

        If there are very many, of the first of them.
        """
        due = list(islice(takewhile(lambda tick: self.due(function, tick) <= now, self.ticks(since)), MOST))
        if self.missed == ALL or not due:
            return [Decision(tick, True, 0) for tick in due]
        *passed, last = due
        if len(due) == MOST:
            return [Decision(passed[-1], False, len(passed))]
        if self.missed == SKIP and now - self.due(function, last) > PUNCTUAL:
            return [Decision(last, False, len(due))]
        return [Decision(last, True, len(passed))]

    def next_due(self, function: str, since: datetime) -> datetime | None:
        """When the first tick after that time is due."""
        tick = next(self.ticks(since), None)
        return None if tick is None else self.due(function, tick)

    def describe(self) -> dict[str, Any]:
        """As JSON-able data; `Cron(**described)` is the same again."""
        return {
            "expression": self.expression, "tz": self.tz, "missed": self.missed, "overlap": self.overlap,
            "jitter": self.jitter,
        }  # fmt: skip


def cron(
    expression: str,
    *,
    tz: str = "UTC",
    missed: Missed = SKIP,
    overlap: Overlap = ALLOW,
    jitter: timedelta | float = 0,
) -> Cron:
    """A trigger: the function runs at these times, once for each, however many workers there are.

    `expression` has five fields, or six with seconds first, or is a nickname like `@daily`; `tz` is the zone that it is
    meant in. `missed` ticks, at whose time no worker was up, are passed over ("skip": those that are later than a minute),
    all but the last ("latest"), or each started after all ("all"). `overlap="skip"` passes a tick over while an earlier
    run that cron started is unfinished. `jitter` spreads the starts over so long. Data of the event: its `tick` (in
    the zone), `function`, `app`, `expression` and `tz`.

    >>> @app.function(on=cron("0 3 * * *", tz="Europe/Berlin", missed="latest"))
    ... def nightly_report(event: Event[dict[str, Any]], step: Step) -> None: ...
    """
    seconds = jitter.total_seconds() if isinstance(jitter, timedelta) else jitter
    return Cron(expression, tz, missed, overlap, seconds)


def event_id(function: str, tick: datetime) -> str:
    """Of function and tick: two schedules of a function that tick at once start one run."""
    return f"cron:{function}:{tick.astimezone(UTC).isoformat().replace('+00:00', 'Z')}"


def event_data(app: str, function: str, expression: str, tz: str, tick: datetime) -> dict[str, Any]:
    local = tick.astimezone(ZoneInfo(tz))
    return {"app": app, "function": function, "expression": expression, "tz": tz, "tick": local}


def _on_the_wall(local: datetime, zone: ZoneInfo) -> datetime:
    """When the clocks on the wall show this for the first time; if they leap over it, when they do."""
    while True:
        found = local.replace(tzinfo=zone).astimezone(UTC)
        if found.astimezone(zone).replace(tzinfo=None) == local:
            return found
        local = local.replace(second=0) + timedelta(minutes=1)
