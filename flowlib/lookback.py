"""Looking through events that Redis still has, for the first that a wait would take. Knows neither jobs nor leases."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .codec import decode
from .errors import PayloadError
from .journal import WAIT
from .model import Memo
from .records import event_value, pack_memo, read_event
from .sealed import Open
from .wait import Wait

log = logging.getLogger("flowlib.engine")

Found = tuple[bytes | None, str | None]  # the memo, and the id of the event
Find = Callable[[str], tuple[str, bool, list[tuple[str, Any]]]]


def look_back(find: Find, step_id: str, wait: Wait, looked: str, open: Open | None) -> tuple[str, Found]:
    """From behind `looked` on: up to which event of the stream it was looked, and what was found there."""
    more = True
    while more:
        looked, more, entries = find(looked)
        for entry, fields in entries:
            try:
                event = read_event(entry, fields)
                memo = Memo(event_value(event), None, WAIT)
                stored = decode(memo.value, open=open)
            except (KeyError, ValueError, OverflowError, PayloadError) as error:
                log.debug("event %s cannot be read: %s", entry, error)
                continue
            if wait.takes(step_id, stored):
                return entry, (pack_memo(memo), event[0])
    return looked, (None, None)
