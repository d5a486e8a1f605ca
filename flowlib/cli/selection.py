"""One run by its id, or many by what they have in common, for commands that do something to each of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import wraps
from typing import Any, TypeVar

import click

from flowlib.errors import FlowError
from flowlib.model import STATES, STATUSES, Run
from flowlib.store import Store

from .connection import runs_of
from .lookup import find_run
from .options import Since
from .output import print_json

F = TypeVar("F", bound=Callable[..., Any])

MOST_SHOWN = 20


class Selection:
    """What the options said."""

    def __init__(
        self, run_id: str | None, wanted: str | None, function: str | None, since: datetime | timedelta | None,
        match: Sequence[tuple[str, Any]], dry_run: bool, yes: bool,
    ) -> None:  # fmt: skip
        self._run_id = run_id
        self._filter = {"status": wanted, "function": function, "since": since, "match": dict(match)}
        self._dry_run, self._yes = dry_run, yes
        filtered = any(self._filter.values())
        if (run_id is None) is not filtered:
            raise click.UsageError("say one RUN, or which ones: --status, --function, --since, --match")

    @property
    def single(self) -> bool:
        return self._run_id is not None

    def runs(self, store: Store, status: str | None = None) -> list[Run]:
        """The oldest first. `status` is what those must have that were not said by their id. Raises NotFound."""
        if self._run_id is not None:
            return [runs_of(store).get(find_run(store, self._run_id))]
        wanted: dict[str, Any] = {**self._filter, "status": self._filter["status"] or status}
        found = runs_of(store).list(**wanted, limit=None)[::-1]
        return [run for run in found if status is None or status in (run.status, run.state)]

    def each(
        self,
        verb: str,
        runs: Sequence[Run],
        act: Callable[[Run], dict[str, Any]],
        as_json: bool,
        say: Callable[[Any], str],
    ) -> int:
        """Do it to each, once that is agreed to; what it made of each is told. The exit code: 1 if one of many was refused."""
        if self._dry_run or not (self.single or self._agreed(verb, len(runs))):
            self._tell(verb, runs, as_json)
            return 0 if self._dry_run else 1
        told, refused = [], 0
        for run in runs:
            try:
                document = act(run)
            except FlowError as error:
                if self.single:
                    raise
                refused += 1
                document = {"id": run.id, "error": str(error)}
            told.append(document)
            if not as_json:
                click.echo(document.get("error") or say(document), err="error" in document)
        if as_json:
            print_json(told[0] if self.single else told)
        return 1 if refused else 0

    def _agreed(self, verb: str, count: int) -> bool:
        if self._yes or not count:
            return True
        if not sys.stdin.isatty():
            raise click.UsageError(f"--yes, to {verb} {count} runs; or --dry-run, to see which")
        return click.confirm(f"{verb} {count} runs?", err=True)

    def _tell(self, verb: str, runs: Sequence[Run], as_json: bool) -> None:
        if as_json:
            print_json([{"id": run.id, "function": run.function, "status": run.status} for run in runs])
            return
        click.echo(f"would {verb} {len(runs)} runs" + (":" if runs else ""))
        for run in runs[:MOST_SHOWN]:
            click.echo(f"  {run.id}  {run.app}/{run.function}  {run.state or run.status}  {run.event.id}")
        if len(runs) > MOST_SHOWN:
            click.echo(f"  … and {len(runs) - MOST_SHOWN} more")


class _Field(click.ParamType[tuple[str, Any]]):
    name = "FIELD=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The value is JSON, or else a string."""
        if isinstance(value, tuple):
            return value
        path, equals, said = value.partition("=")
        if not equals or not path:
            self.fail(f"{value!r}: say it as FIELD=VALUE", param, ctx)
        try:
            return path, json.loads(said)
        except (ValueError, RecursionError):
            return path, said


def selection(command: F) -> F:
    """Gives the command a `Selection`, as `selected`."""

    @wraps(command)  # and with the options that it has already
    def made(*args: Any, **kwargs: Any) -> Any:
        told = ("run_id", "wanted", "function", "since", "match", "dry_run", "yes")
        return command(*args, selected=Selection(*(kwargs.pop(name) for name in told)), **kwargs)

    for option in reversed(
        (
            click.argument("run_id", metavar="[RUN]", required=False),
            click.option("--status", "wanted", type=click.Choice(list(dict.fromkeys((*STATUSES, *STATES))))),
            click.option("--function", metavar="NAME", help="All runs of this function."),
            click.option("--since", type=Since(), help="All that started since then: 90s, 5m, 1h, 2d, or an ISO time."),
            click.option("--match", type=_Field(), multiple=True, help="All whose event's data has this value there."),
            click.option("--dry-run", is_flag=True, help="Only say which."),
            click.option("--yes", is_flag=True, help="Do not ask, though they are many."),
        )
    ):
        made = option(made)
    return made  # type: ignore[return-value]
