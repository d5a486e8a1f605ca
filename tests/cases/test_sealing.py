"""Encryption and claim checks: what is stored is not what the function sees, and nothing else is different."""

from __future__ import annotations

import base64
import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
from fsspec import register_implementation
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from rq.job import Job
from rq.serializers import JSONSerializer

from flowlib import App, ConfigError, Event, EventType, Limits, Middleware, NonRetriable, StepFailed
from flowlib.middleware import ClaimCheck, Encryption
from flowlib.testing import Stored, check_invariants
from tests.cases.case import Case, in_place, only_sync
from tests.forks import Fork
from tests.patience import until

SECRET = "ada@example.com"
KEY, OLD = bytes(range(32)), base64.b64encode(bytes(16)).decode()


@dataclass(frozen=True)
class Person:
    mail: str


signed_up = EventType("signed.up", Person)
answered = EventType("answered", Person)


def all_that_is_stored(case: Case) -> bytes:
    client = case.app.store.client
    read: dict[Any, Any] = {
        b"string": client.get, b"hash": client.hgetall, b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers, b"zset": lambda key: client.zrange(key, 0, -1), b"stream": client.xrange,
    }  # fmt: skip
    keys = list(client.scan_iter(count=1000))
    return repr([(key, read[client.type(key)](key)) for key in keys]).encode()


def uses_all(case: Case) -> None:
    """A function through which the secret goes in all ways that there are."""

    def look_up(mail: str) -> Person:
        case.ledger.append("look-up")
        return Person(mail)

    @case.function(on=signed_up)
    def f(event: Event[Person], step: Any) -> Any:
        person = yield step.run("look-up", look_up, event.data.mail)
        yield step.sleep("nap", 0.01)
        step.uuid()
        yield step.send_event("tell", Event("told", {"mail": person.mail}, id="told"))
        answer = yield step.wait_for_event("answer", answered, match={"mail": person.mail}, timeout=20)
        chosen = yield step.wait_for_event("choice", answered, when=lambda each: "@" in each.data.mail, timeout=20)
        return [person.mail, answer.data, chosen.data.mail]

    @case.function(on="told", name="heard")
    def g(event: Event[dict[str, str]], step: Any) -> Any:
        return event.data["mail"]


def go_through_all(case: Case) -> str:
    run_id = case.send(event=signed_up(Person(SECRET)))

    def waits_for(step: str) -> bool:
        run = case.app.runs.get(run_id)
        return (run.state, run.step) == ("waiting", step)

    for step in ("answer", "choice"):
        until(partial(waits_for, step))
        case.app.send(answered(Person(SECRET)))
    run = case.ended(run_id)
    assert (run.status, run.result) == ("completed", [SECRET, {"mail": SECRET}, SECRET]), run.error
    assert run.event.data == Person(SECRET)
    (heard,) = case.app.runs.of_event("told")
    assert case.ended(heard).result == SECRET
    return run_id


def test_what_runs_and_people_tell_each_other_is_sealed_too(case: Case) -> None:
    """BEHAVIOURS 128: the data of children and of calls, their results, values of promises."""
    case.use_middleware([Encryption({"new": KEY})])

    @case.function(on="child", name="child")
    def g(event: Event[dict[str, str]], step: Any) -> Any:
        return (yield step.run("look", lambda: event.data["mail"]))

    @case.function(on=signed_up)
    def f(event: Event[Person], step: Any) -> Any:
        told = yield step.invoke("child", "child", {"mail": event.data.mail})
        promise = step.promise("ok")
        yield step.run("tell", lambda: case.ledger.append(promise.token))
        return [told, (yield promise.result())]

    run_id = case.send(event=signed_up(Person(SECRET)))
    until(lambda: case.ledger)
    case.app.promises.resolve(case.ledger[0], SECRET)
    run = case.ended(run_id)
    assert (run.status, run.result) == ("completed", [SECRET, SECRET]), run.error
    assert case.app.call("child", {"mail": SECRET}).result(20) == SECRET
    assert SECRET.encode() not in all_that_is_stored(case)


def test_stored_is_ciphertext_and_the_function_sees_clear_text(case: Case) -> None:
    """BEHAVIOURS 128: events, memos, waits and their matches, results, what RQ shows; on the first pass as in replays (I8)."""
    case.use_middleware([Encryption({"new": KEY})])
    uses_all(case)
    run_id = go_through_all(case)
    assert case.ledger == ["look-up"]
    assert SECRET.encode() not in all_that_is_stored(case)
    assert case.app.runs.outputs(run_id)["look-up"] == {"mail": SECRET}
    job = Job.fetch(f"{run_id}-look-up", connection=case.app.store.client, serializer=JSONSerializer)
    assert "sealed by aes-gcm" in str(job.return_value())
    assert check_invariants(case.app.store) == []


@only_sync
def test_without_it_the_same_is_in_clear(case: Case) -> None:
    """The test before this one can fail."""
    uses_all(case)
    go_through_all(case)
    assert SECRET.encode() in all_that_is_stored(case)


def held_up(case: Case) -> None:
    def secret() -> str:
        case.ledger.append("secret")
        return SECRET

    @case.function(on=signed_up, retries=0)
    def f(event: Event[Person], step: Any) -> Any:
        told = yield step.run("secret", secret)
        answer = yield step.wait_for_event("answer", "go", timeout=20)
        return [told, event.data.mail, answer.data]


def stopped_and_started(case: Case, middleware: list[Middleware]) -> Any:
    """A run whose worker is replaced, while it waits, by one with other middleware; how it ends."""
    run_id = case.send(event=signed_up(Person(SECRET)))
    until(lambda: case.app.runs.get(run_id).state == "waiting")
    for worker, _ in case._workers:
        worker.stop()
    case.join()
    case.use_middleware(middleware)
    case.start()
    App("in-clear").connect(store=case.app.store).send(Event("go", "on"))
    return case.ended(run_id)


@pytest.mark.parametrize(
    "later",
    [
        [Encryption({"newer": KEY[::-1], "new": KEY})],
        [Encryption({"new": KEY}, decrypt_only=True)],
    ],
    ids=["another-key-before-it", "decrypt-only"],
)
@in_place
def test_an_older_key_goes_on_decrypting(case: Case, later: list[Middleware]) -> None:
    """BEHAVIOURS 128: rotation, and the way out."""
    case.use_middleware([Encryption({"new": KEY, "old": OLD})])
    held_up(case)
    run = stopped_and_started(case, later)
    assert (run.status, run.result, case.ledger) == ("completed", [SECRET, SECRET, "on"], ["secret"])
    stored = Stored(case.app.store).runs[run.id]["result"]
    assert (SECRET in stored) is (later[0].__dict__["_current"] is None)


@in_place
def test_what_was_stored_in_clear_stays_readable_when_encryption_comes(case: Case) -> None:
    held_up(case)
    run = stopped_and_started(case, [Encryption({"new": KEY})])
    assert (run.status, run.result) == ("completed", [SECRET, SECRET, "on"])


@pytest.mark.parametrize(
    ("later", "says"),
    [
        ([Encryption({"other": KEY})], "encrypted with the key 'new', and there is only 'other'"),
        ([Encryption({"new": KEY[::-1]})], "cannot be decrypted: the key 'new' is another one now"),
        ([], "sealed by 'aes-gcm': that has to be in the middleware= of whoever reads it"),
    ],
    ids=["no-such-key", "another-key", "none"],
)
@only_sync
def test_a_run_that_cannot_be_read_fails_with_what_is_missing_and_is_retried_once_it_is_there(
    case: Case, later: list[Middleware], says: str
) -> None:
    case.use_middleware([Encryption({"new": KEY})])
    held_up(case)
    run = stopped_and_started(case, later)
    assert (run.status, run.error and run.error.type) == ("failed", "PayloadError")
    assert says in (run.error.message if run.error else "")
    for worker, _ in case._workers:
        worker.stop()
    case.join()
    case.use_middleware([Encryption({"new": KEY})])
    case.start()
    case.app.runs.retry(run.id)
    assert case.ended(run.id).result == [SECRET, SECRET, "on"]
    assert case.ledger == ["secret"]


WRONG_KEYS: list[Any] = [{}, {"a": b"short"}, {"a": "not base64!"}, {"": KEY}, {"a": 7}, {"a": "c2hvcnQ="}]


@pytest.mark.parametrize("keys", WRONG_KEYS)
def test_wrong_keys_are_refused_and_not_shown(keys: Any) -> None:
    with pytest.raises(ConfigError, match="Encryption: ") as refused:
        Encryption(keys)
    assert "short" not in str(refused.value)
    assert "not base64!" not in str(refused.value)


# -- claim check -------------------------------------------------------------------------------------------------------


def sizes(case: Case) -> None:
    def big() -> bytes:
        case.ledger.append("big")
        return b"x" * 100_000

    def fail() -> None:
        case.ledger.append("fail")
        raise NonRetriable("failed " + "y" * 3000)

    @case.function(limits=Limits(output_bytes=2000), retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        got = yield step.run("big", big)
        yield step.sleep("nap", 0.01)
        try:
            yield step.run("fail", fail)
        except StepFailed as failed:
            return [len(got), failed.message[:8], len(event.data["blob"]), got]


def files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def test_large_values_are_stored_apart_and_read_back(case: Case, tmp_path: Path) -> None:
    """BEHAVIOURS 129, 18: events, outputs and results, also of a run with a failed step, whose error stays in Redis, as the
    next test says. Limits are of what is in Redis.
    """
    case.use_middleware([ClaimCheck(f"file://{tmp_path}/kept", over=1000)])
    sizes(case)
    run = case.run({"blob": "z" * 600_000})  # more than an event may have
    assert (run.status, run.result and run.result[:3]) == ("completed", [100_000, "failed y", 600_000])
    assert case.ledger == ["big", "fail"]
    assert len(files(tmp_path)) == 3
    assert len(all_that_is_stored(case)) < 60_000
    assert check_invariants(case.app.store) == []


@in_place
def test_of_a_failed_step_the_error_is_in_redis_cut_short_and_nothing_apart(case: Case, tmp_path: Path) -> None:
    """BEHAVIOURS 129, but for this: whoever looks at what went wrong needs no store, and what is large is bounded anyway."""
    case.use_middleware([ClaimCheck(f"file://{tmp_path}/kept", over=1000)])

    def fail() -> None:
        raise NonRetriable("m" * 100_000)

    @case.function()
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("fail", fail)

    run = case.run()
    assert (run.status, run.error and run.error.step) == ("failed", "fail")
    memo: Any = case.app.store.client.hget(case.app.store.keys.memo(run.id), "1:fail")
    assert memo[:1] == b"e"
    error = msgpack.unpackb(memo[1:])
    assert error["message"] == "m" * 4096
    assert error["traceback"].startswith("Traceback")
    assert 16 * 1024 <= len(error["traceback"]) < 16 * 1024 + 100
    assert run.error is not None
    assert (run.error.message, run.error.traceback) == (error["message"], error["traceback"])
    assert b"m" * 17_000 not in all_that_is_stored(case)
    assert files(tmp_path) == []
    assert check_invariants(case.app.store) == []


def write_half(value: bytes, folder: str) -> None:
    """As one that is killed when it has written half of it."""

    def die(file: Any, data: bytes) -> None:
        file.f.write(data[: len(data) // 2])
        file.f.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    opener: Any = LocalFileOpener
    opener.write = die
    ClaimCheck(folder, over=0).encode(value)


def test_a_value_that_is_apart_outlives_one_who_is_killed_while_writing_the_same_again(tmp_path: Path) -> None:
    """I3: what was recorded can be read, whoever comes upon the same value later, and dies as he writes it."""
    kept, value = ClaimCheck(str(tmp_path), over=0), b"x" * 100_000
    name = kept.encode(value)
    assert name is not None
    dying = Fork(write_half, value, str(tmp_path), environment=os.environ, out=tmp_path / "log")
    assert dying.exit_code == -signal.SIGKILL
    assert kept.decode(name) == value
    assert kept.encode(value) == name
    assert kept.decode(name) == value


class Reluctant(LocalFileSystem):  # type: ignore[misc]
    """As SMB and HDFS are: nothing is renamed to what is there already."""

    protocol = "reluctant"
    full = False

    def mv(self, path1: str, path2: str, recursive: bool = True, **_: Any) -> None:
        if self.full:
            raise OSError("no space left")
        os.link(path1, path2)  # as a rename, but for FileExistsError
        Path(path1).unlink()


def test_a_value_can_be_put_apart_twice_where_nothing_is_renamed_to_what_is_there_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a step that is tried again, or by two that return the same."""
    register_implementation("reluctant", Reluctant, clobber=True)
    kept = ClaimCheck(f"reluctant://{tmp_path}", over=0)
    names = [kept.encode(b"the same") for _ in range(2)]
    assert names[0] is not None
    assert names == names[:1] * 2
    assert kept.decode(names[0]) == b"the same"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [names[0].decode()]
    monkeypatch.setattr(Reluctant, "full", True)
    with pytest.raises(OSError, match="no space left"):
        kept.encode(b"another")


@only_sync
def test_apart_and_encrypted_there_is_no_clear_text_anywhere(case: Case, tmp_path: Path) -> None:
    case.use_middleware([Encryption({"new": KEY}), ClaimCheck(f"file://{tmp_path}", over=1000)])
    sizes(case)
    assert case.run({"blob": "z" * 600_000}).status == "completed"
    assert not any(b"x" * 100 in file.read_bytes() or b"z" * 100 in file.read_bytes() for file in files(tmp_path))
    assert b"x" * 100 not in all_that_is_stored(case)


class Flaky(ClaimCheck):
    """Its store is away when it is read so many times."""

    away = 0

    def decode(self, payload: bytes) -> bytes:
        if Flaky.away:
            Flaky.away -= 1
            raise ConnectionError("the store is away")
        return super().decode(payload)


@only_sync
def test_a_store_that_is_away_is_no_business_of_the_functions_and_is_asked_again(case: Case, tmp_path: Path) -> None:
    case.use_middleware([Flaky(f"file://{tmp_path}", over=1000)])
    caught: list[Exception] = []

    def big() -> str:
        case.ledger.append("big")
        return "x" * 5000

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        try:
            got = yield step.run("big", big)
        except Exception as error:  # would compensate for what has not happened
            caught.append(error)
            raise
        yield step.sleep("nap", 0.05)
        return len(got)

    run_id = case.send()
    until(lambda: case.app.runs.get(run_id).state == "sleeping")
    Flaky.away = 2
    run = case.ended(run_id)
    assert (run.status, run.result, caught, case.ledger) == ("completed", 5000, [], ["big"])
    assert [entry.detail["error"]["message"] for entry in case.entries(run_id, "failed")] == ["the store is away"] * 2
    assert check_invariants(case.app.store) == []


@only_sync
def test_a_value_that_is_gone_from_the_store_fails_the_run_by_name(case: Case, tmp_path: Path) -> None:
    case.use_middleware([ClaimCheck(f"file://{tmp_path}", over=1000)])

    @case.function(retries=3)
    def f(event: Event[Any], step: Any) -> Any:
        yield step.run("big", case.body("big", "x" * 5000))
        yield step.sleep("nap", 0.05)

    run_id = case.send()
    until(lambda: case.app.runs.get(run_id).state == "sleeping")
    for file in files(tmp_path):
        file.unlink()
    run = case.ended(run_id)
    assert run.status == "failed"
    assert "step 'big': what is recorded: its value was kept at" in (run.error.message if run.error else "")


@pytest.mark.parametrize("wrong", [{"over": -1}, {"over": "1"}, {"url": "nowhere://x"}])
def test_a_wrong_claim_check_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ClaimCheck: "):
        ClaimCheck(**{"url": str(tmp_path), **wrong})
