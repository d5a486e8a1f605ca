"""The methods of `model_of_events.ModelWithEvents`, done by the real scripts; and what is stored of waits."""

from __future__ import annotations

from typing import Any

from flowlib.codec import decode, encode
from flowlib.journal import WAIT
from flowlib.model import Memo
from flowlib.records import Dispatched, pack_memo, unpack_memo
from flowlib.testing import Stored
from flowlib.wait import Wait, digest_in

from .conftest import Desk
from .model_of_events import ModelWithEvents, Sent, fields_of, told
from .model_of_runs import Held, Wish
from .scripts import LONG, Scripts, differences, lease_of, left_of, spec_of

PAST_MS, FAR_MS = 1, 4_000_000_000_000


class ScriptsWithEvents(Scripts):
    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.store.join_events("desk")

    def send(self, event: Sent) -> int:
        self.store.send_events([("", event.name, encode(_data(event), where="data"), 0, "")])
        read: Any = self.client.xreadgroup("desk", "reader", {self.store.keys.events: ">"})
        ((_, ((id, _),)),) = read
        self.ids.append(id.decode())
        return len(self.ids)

    def note(self, held: Held, key: str, memo: str, after: str) -> str:
        packed = pack_memo(Memo(memo.encode()))
        reply = self.store.wire.call(self.store.note_value(lease_of(held), key, packed, after))
        if isinstance(reply, bytes):
            return reply.decode()
        verdict, first = reply
        return f"{verdict.decode()} {unpack_memo(first).value.decode()}"

    def find(self, name: str, after: int, at_most: int) -> tuple[int, bool, list[int]]:
        looked, more, found = self.store.find_events(name, self.id(after), at_most)
        return self.number(looked), more, [self.number(id) for id, _ in found]

    def listen(
        self, held: Held, to: str, wish: Wish, looked: int | None, found: int | None, is_over: bool | None
    ) -> str:
        wait = _wait(wish)
        upto = None if looked is None else self.id(looked)
        its = (None, None) if found is None else (_memo(found), f"event {found}")
        until = "" if is_over is None else str(PAST_MS if is_over else FAR_MS)
        return self.store.chain_job(
            lease_of(held), held.at, held.after, left_of(held), spec_of(held, to, WAIT), sleep_ms=str(LONG), until_ms=until,
            wait=(wait.name, wait.fields, wait.digest, wait.match, LONG, None, upto, *its, 1 if wish.asks else None),
        )  # fmt: skip

    def dispatch(self, numbers: list[int], known: tuple[str, ...]) -> list[tuple[int, str, list[str]]]:
        """The last few in one call."""
        replies = self.store.send_all([self.store.dispatch_events("desk", [self._told(n, known) for n in numbers])])[0]
        assert all(word == 2 for word, *_ in replies), replies
        return [
            (self.number(id.decode()), name.decode(), [each.decode() for each in by]) for _, id, name, *by in replies
        ]

    def _told(self, number: int, known: tuple[str, ...]) -> Dispatched:
        found: Any = self.client.xrange(self.store.keys.events, self.id(number), self.id(number))
        ((_, entry),) = found
        name, data = entry[b"name"].decode(), decode(entry[b"data"])
        digests = {by: digest_in(by, data) for by in known}
        return self.id(number), name, [], name, f"event {number}", digests, _memo(number), [], 0, ()


def _wait(wish: Wish) -> Wait:
    return Wait(wish.name, {} if wish.kind is None else {"k": wish.kind}, LONG, None)


def _data(event: Sent) -> dict[str, Any]:
    return {"good": event.good} if event.kind is None else {"k": event.kind, "good": event.good}


def _memo(number: int) -> bytes:
    return pack_memo(Memo(told(number).encode()))


def all_differences(model: ModelWithEvents, stored: Stored) -> list[str]:
    """As `differences`, and of waits: who is registered where, and how many by which fields; which events are settled."""
    keys = stored.values
    waiters: dict[str, dict[str, float]] = {}
    fields: dict[str, dict[str, str]] = {}
    for job, (wish, since, _) in model.waits.items():
        waiters.setdefault(f"{wish.name}:{_wait(wish).digest}", {})[job] = since
        by = fields.setdefault(wish.name, {})
        by[fields_of(wish)] = str(int(by.get(fields_of(wish), 0)) + 1)
    received = {
        name: sum(model.stream[number - 1].name == name for number in model.settled) for name in ("it", "oh")
    }  # fmt: skip
    metrics = keys.get("flow:metrics:desk", {})
    pairs: dict[str, tuple[object, object]] = {
        "waits": (set(model.waits), set(keys.get("flow:waits:desk", {}))),
        "waiters": (waiters, stored.under("flow:waiters:desk:")),
        "fields": (fields, stored.under("flow:fields:desk:")),
        "received": (received, {name: int(metrics.get(f"events_received|||{name}", 0)) for name in received}),
    }
    wrong = [f"{what}: {is_} is stored, not {ought}" for what, (ought, is_) in pairs.items() if ought != is_]
    return differences(model, stored) + wrong
