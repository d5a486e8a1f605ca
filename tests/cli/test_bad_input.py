"""Bad input: one clear line on standard error, an exit code, no traceback, and nothing stored (I10)."""

from __future__ import annotations

import gc
import socketserver
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from flowlib.server import ANY_PORT, Server
from tests.cli.conftest import Flow, Said, Shop, run_flow

LONG = "x" * 257
BIG = '"' + "x" * (512 * 1024) + '"'
TRAILING_COMMA = 6 if sys.version_info >= (3, 13) else 7  # or what is behind it, as Python's json says it


def assert_error(said: Said, *fragments: str, code: int = 1) -> None:
    assert said.code == code, said
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("flow: error: ")
    for fragment in fragments:
        assert fragment in line


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["x", "--data", '{"id": o1}'], ["--data is no JSON", "column 8", "o1"]),
        (["x", "--data", '{"id":\n "o1",}'], ["--data is no JSON", f"line 2, column {TRAILING_COMMA}"]),
        (["x", "--data", ""], ["--data is no JSON"]),
        (["x", "--data", "NaN"], ["NaN"]),
        (["x", "--data", "[" * 100_000], ["nested too deeply"]),
        (["x", "--data", "@missing.json"], ["missing.json", "No such file"]),
        (["", "--data", "{}"], ["event name ''", "1 to 256 characters"]),
        ([LONG, "--data", "{}"], ["257 characters", "1 to 256"]),
        (["x\n", "--data", "{}"], ["control characters"]),
        (["x", "--id", LONG], ["event id", "at most 256"]),
        (["x", "--data", BIG], ["over the limit of 524288 bytes"]),
        (["shop/order.placed", "--data", '{"items": 1}', "--app", "tests.cli.shop:app"], ["data.id", "missing"]),
        (["shop/order.placed", "--data", '{"id": 7}', "--app", "tests.cli.shop:app"], ["data.id", "expected str"]),
        (["shop/order.placed", "--data", '"no"', "--app", "tests.cli.shop:app"], ["data", "Order"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_a_bad_event_is_refused(flow: Flow, redis: redis_py.Redis, arguments: list[str], fragments: list[str]) -> None:
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # what earlier tests have left is not to be found while the stack is full
    assert_error(flow("send", *arguments), *fragments)
    assert redis.dbsize() == 0


def test_a_file_that_is_no_utf8_is_refused(flow: Flow, redis: redis_py.Redis) -> None:
    Path("latin.json").write_bytes('{"name": "Jürgen"}'.encode("latin-1"))
    assert_error(flow("send", "x", "--data", "@latin.json"), "latin.json is no UTF-8: byte 11")
    assert redis.dbsize() == 0


def test_of_many_events_none_is_sent_when_one_is_bad(flow: Flow, redis: redis_py.Redis) -> None:
    lines = ['{"name": "a"}', "", '{"name": "b", "data": {broken', '{"nome": "c"}', '{"name": "", "data": 1}']
    said = flow("send", "--stdin", input="\n".join(lines))
    assert_error(
        said, "nothing was sent", "line 3 is no JSON", "line 4: an event is an object", "line 5: event name ''"
    )
    assert redis.dbsize() == 0


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["send"], "NAME"),
        (["send", "--stdin", "--data", "{}"], "--stdin"),
        (["send", "x", "--ts", "tomorrow"], "no ISO time"),
        (["runs", "--since", "yesterday"], "1h"),
        (["runs", "--since", f"{'9' * 20}w"], "is neither like 90s"),
        (["worker", "shop:app", "--max-memory", "9" * 400], "is no size"),
        (["runs", "--status", "happy"], "completed"),
        (["runs", "--limit", "0"], "--limit"),
        (["show"], "RUN"),
        (["worker"], "MODULE:APP"),
        (["worker", "shop:app", "--lease", "0"], "--lease"),
        (["dance"], "'dance'"),
        (["runs", "--dance"], "--dance"),
        (["dev", "shop:app", "--fresh"], "--fresh"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_line_that_cannot_be_understood_is_refused(flow: Flow, arguments: list[str], fragment: str) -> None:
    assert_error(flow(*arguments), fragment, code=2)


# -- apps --------------------------------------------------------------------------------------------------------------

MODULE = """
from flowlib import App
app = App("app")
empty = App("empty")

@app.function(on="x")
def first(event, step): ...
"""
APPS = [
    (MODULE, "shop", "MODULE:APP"),
    (MODULE, "shop:", "MODULE:APP"),
    (MODULE, "nowhere:app", "no module 'nowhere'"),
    (MODULE, "shop.inner:app", "no module 'shop.inner'"),
    (MODULE, "shop:App2", "no App named 'App2': it has app, empty"),
    (MODULE, "shop:first", "no App named 'first'"),
    (MODULE + "oops = 1 / 0", "shop:app", "division by zero (shop.py:8)"),
    (MODULE + "import nowhere_else", "shop:app", "nowhere_else"),
    (MODULE + "this is no Python", "shop:app", "invalid syntax (shop.py, line 8)"),
    (MODULE + "raise SystemExit(3)", "shop:app", "sys.exit(3)"),
    (MODULE + "app.function(on='y')(first)", "shop:app", "duplicate function 'first'"),
    (MODULE + "app.function(on='', name='g')(first)", "shop:app", "event name ''"),
]


@pytest.mark.parametrize(("source", "location", "fragment"), APPS, ids=[fragment for *_, fragment in APPS])
def test_an_app_that_cannot_be_had(
    flow: Flow, redis: redis_py.Redis, source: str, location: str, fragment: str
) -> None:
    Path("shop.py").write_text(source)
    assert_error(flow("worker", location, "--burst"), fragment)
    assert redis.dbsize() == 0


def test_an_app_without_functions_gets_no_worker(flow: Flow, redis: redis_py.Redis) -> None:
    Path("shop.py").write_text(MODULE)
    assert_error(flow("worker", "shop:empty"), "'empty' declares no function")
    assert redis.dbsize() == 0


def test_flow_dev_ends_with_its_first_worker_when_the_app_cannot_be_had() -> None:
    said = run_flow("dev", "nowhere:app")
    assert said.code == 1
    assert "flow: error: 'nowhere:app': there is no module 'nowhere'" in said.err
    assert "Traceback" not in said.err


def test_flow_debug_shows_the_traceback() -> None:
    Path("shop.py").write_text(MODULE + "oops = 1 / 0")
    said = run_flow("worker", "shop:app", FLOW_DEBUG="1")
    assert said.code == 1
    assert "Traceback" in said.err
    assert 'shop.py", line 8' in said.err


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["show", "logs", "cancel"])
@pytest.mark.parametrize("named", ["01M82BX60A0WPQRVC27YBQSTHR", "01M8", "*", "[a-z]*", "last", LONG, "é"])
def test_a_run_that_does_not_exist_is_said_to_be_none(
    flow: Flow, redis: redis_py.Redis, command: str, named: str
) -> None:
    said = flow(command, named)
    assert_error(said, "no runs yet" if named == "last" else "does not exist")
    assert redis.dbsize() == 0


def test_a_beginning_that_several_runs_share_is_refused_with_their_names(flow: Flow, at_work: Shop) -> None:
    runs = [at_work.order("a").id, at_work.order("b").id]
    assert_error(flow("show", "01"), "any of 2", *runs)


def test_a_run_that_has_ended_cannot_be_cancelled(flow: Flow, at_work: Shop) -> None:
    run = at_work.order("a")
    assert_error(flow("cancel", run.id), "has ended already (completed)")


# -- servers -----------------------------------------------------------------------------------------------------------

COMMANDS = [
    ["runs"],
    ["send", "x"],
    ["doctor"],
    ["show", "last"],
    ["worker", "tests.cli.shop:app"],
    ["metrics", "--once"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/redis.sock"])
def test_without_redis(flow_anywhere: Flow, arguments: list[str], url: str) -> None:
    """A worker waits for it, but not one that is to end by itself."""
    if arguments[0] == "worker":
        arguments = [*arguments, "--burst"]
    assert_error(flow_anywhere(*arguments, "--redis-url", url), "no Redis at", "start one")


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "nonsense", "redis://host:port/0"])
def test_an_address_that_is_none(flow_anywhere: Flow, url: str) -> None:
    assert_error(flow_anywhere("runs", "--redis-url", url), "is no Redis URL")


@pytest.mark.parametrize("url", ["redis://:s3cret@host:port/0", "redis://me:s3/c@ret@127.0.0.1:1/0"])
def test_a_password_in_an_address_that_is_none_is_not_shown(flow_anywhere: Flow, url: str) -> None:
    """141: secrets never appear in errors."""
    said = flow_anywhere("runs", "--redis-url", url)
    assert_error(said, "is no Redis URL")
    assert not any(part in said.err for part in ("s3", "c@", "ret@"))


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_server_that_is_too_old(flow_anywhere: Flow, arguments: list[str], old_server: str) -> None:
    assert_error(flow_anywhere(*arguments, "--redis-url", old_server), "Redis 6.2.14 is too old", "7.0")


@pytest.mark.parametrize("given", ["", ":wr0ng-secret@", "someone:wr0ng-secret@"])
@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_a_wrong_password_is_said_to_be_wrong_and_is_not_shown(
    flow_anywhere: Flow, arguments: list[str], given: str, locked_server: Server
) -> None:
    said = flow_anywhere(*arguments, "--redis-url", f"redis://{given}127.0.0.1:{locked_server.port}/0")
    assert_error(said, "refuses the user name or password")
    assert "wr0ng-secret" not in said.err
    with locked_server.client() as client:
        assert client.dbsize() == 0


def test_an_unexpected_error_is_told_in_one_line_too(flow: Flow, redis: redis_py.Redis) -> None:
    redis.sadd("flow:apps", "shop")
    redis.hset("flow:functions:shop", "f", "{no JSON")
    assert_error(flow("functions"), "JSONDecodeError", "FLOW_DEBUG=1")


@pytest.fixture(scope="module")
def locked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server.start(tmp_path_factory.mktemp("locked"), port=ANY_PORT, config={"requirepass": "s3cret"}) as server:
        yield server


class _OldServer(socketserver.StreamRequestHandler):
    """As much of Redis 6 as a client asks for before it knows whom it speaks to."""

    def handle(self) -> None:
        while head := self.rfile.readline():
            words = []
            for _ in range(int(head[1:])):
                length = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(length + 2)[:-2].decode().upper())
            self.wfile.write(self._reply(words[0]))

    def _reply(self, word: str) -> bytes:
        if word == "HELLO":
            return b"%1\r\n$5\r\nproto\r\n:3\r\n"
        if word == "INFO":
            info = b"# Server\r\nredis_version:6.2.14\r\n"
            return b"$%d\r\n%s\r\n" % (len(info), info)
        return b"+OK\r\n"


@pytest.fixture
def old_server() -> Iterator[str]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _OldServer) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        server.shutdown()
        thread.join()
