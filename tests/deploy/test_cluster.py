"""An app on a real cluster: all its keys are on one node, which any node names, and which may be lost, replaced or moved."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner

from flowlib import App, ConfigError, Event, ServerError
from flowlib.cli import main
from flowlib.cluster import in_cluster
from flowlib.keys import Keys
from flowlib.store import Store
from flowlib.testing import check_invariants
from tests.patience import until

from . import relay
from .cluster import Cluster, Node, cluster

ROOT = Path(__file__).parents[2]
KEYS = Keys("{shop}:flow", "{shop}:rq")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster(KEYS.prefix) as nodes:
        yield nodes


class Site:
    """The app's producer, its workers and the command line, all told of some nodes of the cluster only."""

    def __init__(self, nodes: Cluster, folder: Path) -> None:
        nodes.owner.client.flushall()
        self.nodes = nodes
        self.notes, self.gate, self.log = folder / "notes", folder / "gate", folder / "log"
        self.store = Store(nodes.url(), keys=KEYS, patience=20)
        self.app = App("relay").connect(store=self.store)
        self._workers: list[subprocess.Popen[bytes]] = []

    def work(self, *told: Node) -> None:
        command = [sys.executable, "-m", "flowlib.cli", "worker", "tests.deploy.relay:app"]
        environment = {**os.environ, **self.environment(*told)}
        with self.log.open("ab") as log:
            self._workers.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))

    def environment(self, *told: Node) -> dict[str, str]:
        return {
            "PYTHONPATH": str(ROOT),
            "FLOW_KEY_PREFIX": KEYS.prefix,
            "RQ_KEY_PREFIX": KEYS.rq,
            "FLOW_REDIS_URL": self.nodes.url(*told),
            relay.NOTES: str(self.notes),
            relay.GATE: str(self.gate),
        }

    def noted(self) -> Counter[str]:
        return Counter(self.notes.read_text().split() if self.notes.exists() else ())

    def ends_well(self, run: str) -> None:
        """It goes on, ends, and has run each of its steps once."""
        self.goes_on()
        self.gate.touch()
        assert self.result(run) == len(self.noted())
        assert set(self.noted().values()) == {1}
        assert check_invariants(self.store) == []

    def goes_on(self) -> None:
        """Until some more steps have been run."""
        reached = self.noted().total()
        until(lambda: self.noted().total() > reached + 10)

    def send(self, event: str) -> str:
        """The run that it starts."""
        id = self.app.send(Event(event, {}))
        (run,) = until(lambda: self.app.runs.of_event(id))
        return str(run)

    def result(self, run: str) -> Any:
        """Asked for again as long as no node can be asked."""

        def ended() -> bool:
            with contextlib.suppress(ServerError):
                return self.app.runs.get(run).finished
            return False

        until(ended)
        return self.app.runs.result(run)

    def close(self) -> None:
        for worker in self._workers:
            worker.terminate()
        for worker in self._workers:
            assert worker.wait(20) == 0, self.log.read_text()
        self.store.close()


def flow(*arguments: str) -> str:
    """In this process: what it prints."""
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def site(nodes: Cluster, tmp_path: Path) -> Iterator[Site]:
    site = Site(nodes, tmp_path)
    yield site
    site.close()


def test_an_app_is_on_one_node_and_any_node_will_do_to_find_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, stranger = site.nodes.owner, site.nodes.others[0]
    site.gate.touch()
    site.work(stranger)
    run = site.send("relay/start")
    assert site.result(run) == 1
    for name, value in site.environment(stranger).items():
        monkeypatch.setenv(name, value)
    assert run in flow("runs")
    assert "relay/relay  completed" in flow("show", run)
    assert "leg" in flow("logs", run)
    assert 'flow_runs_finished_total{app="relay",function="relay",status="completed"} 1.0' in flow("metrics", "--once")
    assert "ok    stranded runs" in flow("doctor")
    assert {key[:7] for key in owner.client.scan_iter()} == {b"{shop}:"}
    assert {node.client.dbsize() for node in site.nodes.primaries if node is not owner} == {0}
    assert check_invariants(site.store) == []


def test_runs_go_on_while_the_owner_and_its_replica_change_places(site: Site) -> None:
    """I3, I4: no body runs twice, because what was not answered is sent to the new owner while the lease stands."""
    site.work()
    run = site.send("relay/start")
    for _ in range(3):
        site.goes_on()
        site.nodes.hand_over()
    site.ends_well(run)


def test_runs_go_on_while_their_slot_is_moved_to_another_shard(site: Site) -> None:
    """All at once, by CLUSTER MIGRATESLOTS of Valkey 9; I3, I4."""
    if not site.nodes.can_move:
        pytest.skip("this server moves a slot key by key only: see deploy/SCALING.md")
    site.work()
    run = site.send("relay/start")
    home = site.nodes.owner
    for target in (next(node for node in site.nodes.primaries if node is not home), home):
        site.goes_on()
        site.nodes.move(target)
    site.ends_well(run)


def test_a_step_that_ends_after_its_owner_was_killed_is_recorded_with_the_replica(site: Site) -> None:
    """BEHAVIOURS 146; I3, I4."""
    site.work()
    run = site.send("relay/wait")
    until(lambda: site.noted())
    dead = site.nodes.owner
    until(lambda: dead.client.wait(1, 100))
    dead.server.kill()
    site.gate.touch()
    assert site.result(run) == "done"
    dead.server.restart()
    assert set(site.noted().values()) == {1}
    assert check_invariants(site.store) == []


def test_several_shards_of_one_cluster_are_told_apart_by_their_prefixes(nodes: Cluster) -> None:
    url = nodes.url(nodes.others[0])
    homes = {}
    for tag in ("{shop-1}", "{shop-2}", "{shop-3}", "{shop-4}"):
        store = Store(url, keys=Keys(f"{tag}:flow", f"{tag}:rq"))
        App("shop").connect(store=store).send(Event("placed", {}))
        (homes[tag],) = (node.server.port for node in nodes.primaries if node.client.keys(f"{tag}*"))
        store.close()
    assert len({*homes.values()}) > 1, homes


def test_doctor_warns_of_a_plain_address_of_a_node(nodes: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOW_KEY_PREFIX", KEYS.prefix)
    monkeypatch.setenv("RQ_KEY_PREFIX", KEYS.rq)
    assert "after a failover" in flow("doctor", "--redis-url", nodes.owner.server.url)
    assert "after a failover" not in flow("doctor", "--redis-url", nodes.url(nodes.owner))


def test_an_address_may_name_a_user_several_nodes_and_options() -> None:
    made = in_cluster("rediss+cluster://ada:s%40y@[::1]:7000,b.example/?ssl_ca_certs=ca.pem", KEYS)
    assert issubclass(made["connection_class"], redis.SSLConnection)
    assert (made["username"], made["password"], made["ssl_ca_certs"]) == ("ada", "s@y", "ca.pem")
    assert made["shard"]._nodes == [("::1", 7000), ("b.example", 6379)]


def test_prefixes_that_spread_the_keys_are_refused() -> None:
    """I10."""
    with pytest.raises(ConfigError, match=r"one hash tag, as in \{shop\}:flow and \{shop\}:rq"):
        Store("redis+cluster://127.0.0.1:1", keys=Keys("flow", "rq"))
    with pytest.raises(ConfigError, match="one hash tag"):
        Store("redis+cluster://127.0.0.1:1", keys=Keys("{shop}:flow", "{mail}:rq"))


def test_a_plain_address_of_the_wrong_node_is_told_what_to_write(nodes: Cluster) -> None:
    url = nodes.others[0].server.url
    with pytest.raises(ServerError, match=r"a node of a cluster.* redis\+cluster://"):
        App("relay").connect(store=Store(url, keys=KEYS)).send(Event("relay/start", {}))


def test_a_node_that_is_gone_does_not_keep_the_others_from_being_asked(nodes: Cluster) -> None:
    url = nodes.url(*nodes.others).replace("redis+cluster://", "redis+cluster://127.0.0.1:1,")
    assert Store(url, keys=KEYS).client.dbsize() == nodes.owner.client.dbsize()
    with pytest.raises(ServerError, match=r"no Redis at redis\+cluster://127.0.0.1:1 "):
        App("relay").connect(store=Store("redis+cluster://127.0.0.1:1", keys=KEYS, patience=0)).send(Event("a", {}))
