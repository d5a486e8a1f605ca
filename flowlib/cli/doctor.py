"""`flow doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from flowlib.address import shown

from .checks import FAIL, run_checks
from .connection import connected, find_url
from .options import as_json, redis_url
from .output import STYLES, print_json


@click.command("doctor")
@redis_url
@as_json
def command(redis_url: str | None, as_json: bool) -> int:
    """Check the server, the workers and the runs; exit code 1 when something is wrong.

    Changes nothing. What the server does not let us see is said to be so.
    """
    url = find_url(redis_url)
    failed = False
    checks = []
    with connected(url) as store:
        for check in run_checks(store):
            checks.append(asdict(check))
            failed |= check.status == FAIL
            if not as_json:
                status = click.style(f"{check.status:<5}", fg=STYLES[check.status])
                remedy = f"  → {check.remedy}" if check.remedy else ""
                click.echo(f"{status} {check.name}: {check.says}{remedy}")
    if as_json:
        print_json({"redis": shown(url), "ok": not failed, "checks": checks})
    return 1 if failed else 0
