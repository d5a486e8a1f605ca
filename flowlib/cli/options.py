"""Options that several commands share, and the values that they take."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import click

redis_url = click.option(
    "--redis-url",
    metavar="URL",
    help="Default: FLOW_REDIS_URL, else the server of `flow dev` in this folder, else redis://127.0.0.1:6379/0.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="For programs instead of people.")
sealing = click.option(
    "--app",
    metavar="MODULE:APP",
    envvar="FLOW_APP",
    help="Store it as the middleware of this app does: encrypted, say.",
)
run_id = click.argument("run_id", metavar="RUN")

_SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Since(click.ParamType[datetime | timedelta]):
    """How long ago, or since when: `90s`, `5m`, `1h`, `2d`, or an ISO time (local, if it names no zone)."""

    name = "1h|TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | timedelta:
        if match := re.fullmatch(r"(\d{1,8}(?:\.\d+)?)([smhdw])", value):
            return timedelta(**{_UNITS[match[2]]: float(match[1])})
        try:
            return Moment().convert(value, param, ctx)
        except click.UsageError:
            self.fail(f"{value!r} is neither like 90s, 5m, 1h or 2d nor an ISO time", param, ctx)


class Moment(click.ParamType[datetime]):
    """An ISO time; without a zone it is local."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no ISO time, like 2026-11-22T18:30:00Z", param, ctx)


class Size(click.ParamType[int]):
    """Bytes: `512M`, `2G`, or a number."""

    name = "512M"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if match := re.fullmatch(r"(\d{1,18}(?:\.\d+)?)([KMG]?)B?", str(value), re.IGNORECASE):
            return round(float(match[1]) * _SIZES[match[2].upper()])
        return self.fail(f"{value!r} is no size, like 512M or 2G", param, ctx)
