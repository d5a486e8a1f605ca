"""deploy/prometheus and deploy/grafana: every alert is proven, and every query asks for what flowlib really reports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from flowlib.metrics import NAMES

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels(dashboard: Path) -> list[dict[str, Any]]:
    return json.loads(dashboard.read_text())["panels"]


def queries() -> Iterator[Any]:
    """Each expression that we ship, with Grafana's variables filled in as Grafana would."""
    for rule in alerts():
        yield pytest.param(rule["expr"], id=rule["alert"])
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for target in panel.get("targets", ()):
                filled = re.sub(r"\$__\w+", "5m", target["expr"])
                yield pytest.param(re.sub(r"\$\w+", ".*", filled), id=f"{panel['title']} {target['refId']}")


@needs_promtool
@pytest.mark.parametrize(
    "command",
    ["check config prometheus.yml", "check rules --lint=all --lint-fatal rules.yml", "test rules rules_test.yml"],
)
def test_promtool_accepts(command: str) -> None:
    done = subprocess.run(
        ["promtool", *command.split()], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_shown_firing_and_silent() -> None:
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    cases = [(case["alertname"], bool(case.get("exp_alerts"))) for test in tests for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in alerts()}
    assert {name for name, fires in cases if fires} == names
    assert {name for name, fires in cases if not fires} == names


@pytest.mark.parametrize("query", list(queries()))
def test_the_query_is_promql(query: str) -> None:
    promql_parser.parse(query)


@pytest.mark.parametrize("query", list(queries()))
def test_the_query_asks_for_metrics_that_exist(query: str) -> None:
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bflow_\w+", query)}
    assert asked
    assert asked <= set(NAMES)


@pytest.mark.parametrize("query", list(queries()))
def test_the_query_is_right_with_one_exporter_or_ten(query: str) -> None:
    """All exporters read one Redis: their equal values are to be counted once, and rates are taken before that."""
    once = re.findall(r"max without \(instance, pod\) \((?:rate\(|increase\()?flow_|absent\(flow_", query)
    assert len(once) == len(re.findall(r"\bflow_", query))


def test_every_metric_is_shown_on_a_dashboard() -> None:
    shown = " ".join(dashboard.read_text() for dashboard in DASHBOARDS)
    assert {name for name in NAMES if name not in shown} == set()


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_the_panels_of_a_dashboard_have_ids_of_their_own_and_do_not_overlap(dashboard: Path) -> None:
    taken = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels(dashboard))
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    ids = [panel["id"] for panel in panels(dashboard)]
    assert len(set(ids)) == len(ids)
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
