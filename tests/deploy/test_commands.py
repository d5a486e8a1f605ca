"""Every command line that Procfile and deploy/ start is one that the CLI takes, for an app that can be imported."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from flowlib.app import App
from flowlib.cli import main

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
APP = "workers.contacts:app"


def commands() -> Iterator[Any]:
    """Each command as a list of words, `flow` first."""
    for name, command in re.findall(r"^([\w-]+):\s*(.+)$", (ROOT / "Procfile").read_text(), re.MULTILINE):
        yield pytest.param(shlex.split(command), id=f"Procfile {name}")
    for name, service in yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].items():
        if service.get("image") == "flow":
            yield pytest.param(service["command"], id=f"compose {name}")
    (cmd,) = re.findall(r"^CMD (.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    yield pytest.param(json.loads(cmd), id="Dockerfile")
    for unit in sorted((DEPLOY / "systemd").iterdir()):
        (start,) = re.findall(r"^ExecStart=/opt/flow/bin/(.+)$", unit.read_text(), re.MULTILINE)
        yield pytest.param(
            shlex.split(start.replace("${FLOW_APP}", APP).replace("${FLOW_PROCESSES}", "2")), id=unit.name
        )


@pytest.mark.parametrize("command", list(commands()))
def test_the_cli_takes_the_command(command: list[str]) -> None:
    """Parsed by the CLI itself, and not carried out: an unknown command, option or value is a UsageError here."""
    program, name, *arguments = command
    assert program == "flow"
    with click.Context(main, info_name="flow") as root:
        found = main.get_command(root, name)
        assert found is not None, f"flow {name} does not exist"
        found.make_context(name, arguments, parent=root)


def test_procfile_and_compose_start_workers_and_metrics() -> None:
    started = {(param.id.split()[0], param.values[0][1]) for param in commands()}
    assert {(file, name) for file in ("Procfile", "compose") for name in ("worker", "metrics")} <= started


def test_the_app_that_they_start_exists() -> None:
    module, _, name = APP.partition(":")
    assert isinstance(getattr(importlib.import_module(module), name), App)
    named = [word for param in commands() for word in param.values[0] if ":" in word]
    assert set(named) == {APP}
