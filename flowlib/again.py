"""Runs that go on after they have failed, or begin anew: which job that is, and how often one has to look.

Between a look and its transition a run may have moved: then it is looked at again.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from .errors import RunNotFailed
from .journal import ENTRY, RUN, id_of
from .middleware import Sealing
from .model import HistoryEntry
from .outcome import make_job
from .records import JobSpec, text
from .replay import Original
from .store import Store
from .ulid import ulid


def retry(store: Store, run_id: str) -> str | None:
    """The id of the step that is tried again, "" for the code behind the last; None when there is no such run any more.

    Raises RunNotFailed.
    """
    token = secrets.token_hex(8)
    while (found := last_job(store, run_id)) is not None:
        verdict, *more = store.retry_run(run_id, token, found)
        if verdict == "retried":
            return id_of(more[0])
        if verdict not in ("unknown", "moved"):
            raise RunNotFailed(run_id, verdict)
    return None


def replay(
    store: Store, run_id: str, history: Callable[[], Sequence[HistoryEntry]], sealing: Sealing | None,
    from_step: str | None, values: Mapping[str, Any],
) -> str | None:  # fmt: skip
    """The id of the new run; None when there is no such run any more. Raises what `Original.memos` does."""
    new = ulid(time.time_ns() // 1_000_000, secrets.token_bytes(10))
    while (first := first_job(store, run_id, new)) is not None:
        keys = cast(list[bytes], store.client.hkeys(store.keys.memo(run_id)))
        original = Original(run_id, history(), map(text, keys), sealing)
        verdict = store.replay_run(run_id, new, first, original.memos(from_step, values))
        if verdict == "replayed":
            return new
        if verdict == "unknown":
            break
    return None


def last_job(store: Store, run_id: str) -> JobSpec | None:
    """The job that the run is at, or was at when it ended; None when there is no such run any more."""
    app, function, location, step, kind, queue = _fields(
        store, run_id, "app", "function", "location", "step", "kind", "queue"
    )
    return make_job(app, function, run_id, location, step, kind, None, queue) if app else None


def first_job(store: Store, run_id: str, new: str) -> JobSpec | None:
    """That of a new run, as this one began; in the function's queue, as workers have declared it."""
    app, function, location, queue = _fields(store, run_id, "app", "function", "location", "queue")
    if not app:
        return None
    declared = cast(bytes | None, store.client.hget(store.keys.functions(app), function))
    settings: dict[str, Any] = json.loads(declared) if declared else {"queue": queue, "timeout": None}
    return make_job(app, function, new, location, ENTRY, RUN, settings["timeout"], settings["queue"])


def _fields(store: Store, run_id: str, *names: str) -> list[str]:
    return [text(value or b"") for value in cast(list[bytes | None], store.client.hmget(store.keys.run(run_id), names))]
