"""The run that someone means by a prefix of its id, or by `last`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

from flowlib.errors import NotFound
from flowlib.store import Store

from .connection import runs_of

LAST = "last"


def find_run(store: Store, named: str) -> str:
    """The run's whole id. Raises NotFound, also when several could be meant."""
    if named == LAST:
        newest = runs_of(store).list(limit=1)
        if not newest:
            raise NotFound("there are no runs yet: `flow send NAME --data JSON` starts one")
        return newest[0].id
    prefix = named.upper()
    if not re.fullmatch("[0-9A-Z]{1,26}", prefix):
        raise NotFound(f"run {named!r} does not exist: `flow runs` lists those that do")
    if store.client.exists(store.keys.run(prefix)):
        return prefix
    found = sorted(set(_starting_with(store, prefix)))
    if not found:
        raise NotFound(f"run {named!r} does not exist: `flow runs` lists those that do")
    if len(found) > 1:
        some = ", ".join(found[:3]) + (" …" if len(found) > 3 else "")
        raise NotFound(f"run {named!r} may be any of {len(found)}: {some}: say more of its id")
    return found[0]


def _starting_with(store: Store, prefix: str) -> Iterator[str]:
    for app in cast(set[bytes], store.client.smembers(store.keys.apps)):
        for run, _ in store.client.zscan_iter(store.keys.runs(app.decode()), match=f"{prefix}*", count=1000):
            yield run.decode()
