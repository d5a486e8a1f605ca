"""Settling promises from outside: `app.promises`, and what `flow promise` does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

from .codec import decode, encode
from .errors import PayloadError, PromiseSettled, RunEnded
from .journal import PROMISE, id_of
from .model import ErrorInfo, Memo
from .outcome import MAX_MESSAGE
from .promise import read_token, secret_key, unknown_promise
from .records import pack_memo, unpack_memo
from .store import Store
from .triggers import check_event_data
from .wire import explain

_WHY = {"late": "was settled before", "over": "is not waited for any more: its time was over"}


class Promises:
    """The promises of all runs on this Redis; `app.promises` is one of these.

    >>> app.promises.resolve(token, True)
    """

    def __init__(self, store: Callable[[], Store], seal: Callable[[bytes], bytes] = lambda value: value) -> None:
        self._store = store
        self._seal = seal

    def resolve(self, token: str, value: Any = None) -> None:
        """Give the promise its value; the run that waits for it goes on. Once: who is second gets an error.

        Raises NotFound for a token that is none, PromiseSettled, RunEnded, and PayloadError for a value that cannot be stored.

        >>> app.promises.resolve(token, {"by": "ada"})
        """
        run, step, _ = read_token(token)
        where = f"promise of step {id_of(step)!r} of run {run}: value"
        stored = check_event_data(where, self._seal(encode(value, where=where)))
        self._settle(token, Memo(stored, None, PROMISE))

    def reject(self, token: str, reason: str = "") -> None:
        """As `resolve`; asking for its result raises StepFailed with the reason, of type "Rejected".

        >>> app.promises.reject(token, "over budget")
        """
        if not isinstance(reason, str):
            raise PayloadError(f"promise: a reason must be a string, got {reason!r:.120}")
        self._settle(token, Memo(error=ErrorInfo("Rejected", reason[:MAX_MESSAGE])))

    def _settle(self, token: str, memo: Memo) -> None:
        run, step, secret = read_token(token)
        store = self._store()
        try:
            kept = store.client.hget(store.keys.memo(run), secret_key(step).encode("utf-8", "surrogatepass"))
            if not isinstance(kept, bytes) or decode(unpack_memo(kept).value, str) != secret:
                raise unknown_promise(token)
            verdict = store.settle_promise(run, step, pack_memo(memo))
        except redis.RedisError as error:
            raise explain(error, store.url) from None
        if verdict == "unknown":
            raise unknown_promise(token)
        if verdict == "ended":
            raise RunEnded(run, str(store.client.hget(store.keys.run(run), "status"), "ascii"))  # type: ignore[arg-type]
        if verdict != "settled":
            raise PromiseSettled(run, id_of(step), _WHY[verdict])
