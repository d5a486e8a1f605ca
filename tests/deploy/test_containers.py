"""deploy/Dockerfile and deploy/compose.yaml: good by their own checkers, and their parts fit together."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowlib.worker.supervisor import KILL_AFTER

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]


def check(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where in the container -> what of ours."""
    return {target: source for source, target, *_ in (volume.split(":") for volume in service.get("volumes", ()))}


def test_hadolint_accepts_the_dockerfile() -> None:
    check(Path(sysconfig.get_path("scripts")) / "hadolint", DEPLOY / "Dockerfile")


def test_compose_yaml_follows_the_compose_specification() -> None:
    check(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_the_image_is_told_to_run_as_a_plain_user_and_to_pass_signals_on() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    assert "USER 10001:10001" in lines
    assert "STOPSIGNAL SIGTERM" in lines
    # Exec form: no shell takes the signal.
    assert [line for line in lines if line.startswith("CMD")] == [
        'CMD ["flow", "worker", "workers.contacts:app", "--processes", "1", "--grace", "60"]'
    ]


def test_all_that_the_build_copies_is_let_into_it() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().split("\n")
    copied = [
        source
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert ignore[1] == "*"
    assert {f"!{source}" for source in copied} == {line for line in ignore if line.startswith("!")}
    assert [source for source in copied if not (DEPLOY.parent / source).exists()] == []


def test_every_mounted_file_exists_and_every_volume_is_declared(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    sources = {source for service in services.values() for source in mounts(service).values()}
    files = {source for source in sources if source.startswith(".")}
    assert [source for source in files if not (DEPLOY / source).exists()] == []
    assert sources - files == set(compose["volumes"])


def test_redis_runs_on_our_settings_and_keeps_its_file_on_a_volume(services: dict[str, Any]) -> None:
    redis = services["redis"]
    assert mounts(redis)[redis["command"][1]] == "./redis.conf"
    assert mounts(redis)[redis["command"][redis["command"].index("--dir") + 1]] == "redis-data"


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_all_but_the_workers_have_a_health_check(services: dict[str, Any]) -> None:
    """A worker's health is what Redis says of it; the Dockerfile says why."""
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"worker"}


def test_a_worker_is_killed_only_after_its_grace_is_over(services: dict[str, Any]) -> None:
    """BEHAVIOURS 130: the first SIGTERM lets running steps end."""
    command = services["worker"]["command"]
    grace = int(command[command.index("--grace") + 1])
    assert int(services["worker"]["stop_grace_period"].removesuffix("s")) > grace + KILL_AFTER
    assert services["worker"]["deploy"]["replicas"] > 1


def test_prometheus_scrapes_where_metrics_are_served_and_grafana_reads_prometheus(services: dict[str, Any]) -> None:
    served = services["metrics"]["command"][-1]
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert job["static_configs"] == [{"targets": [f"metrics:{served}"]}]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services


def test_grafana_opens_with_the_shipped_dashboard(services: dict[str, Any]) -> None:
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/flow.yaml").read_text())["providers"]
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    folder = mounts(services["grafana"])[provider["options"]["path"]]
    assert str(home.parent) == provider["options"]["path"]
    assert (DEPLOY / folder / home.name).exists()
