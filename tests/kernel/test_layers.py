"""The order of the modules and what the pure ones must not know, read from their source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import takewhile
from pathlib import Path

import pytest

import flowlib

ROOT = Path(flowlib.__file__).parent

# Arrows go downward only; modules of one line may know each other, but never in a circle.
LAYERS = """
    __init__
    cli
    testing
    worker
    job
    metrics
    app
    runs promises
    rehearsal again
    dispatch ticks replay
    subscriptions
    engine
    frame
    asking
    recording parallel
    held turns
    attempt rollback hooked
    outcome invariants lookback verdicts
    store
    records
    wire
    address
    keys cluster assembly
    board capture deadline loop quiet_loop middleware
    declaration
    async_step step
    face timeline
    child promise
    journal wait
    server function triggers retry schedule codec readable shape hints scalar sealed model ulid errors
"""
RANK = {name: rank for rank, line in enumerate(LAYERS.strip().splitlines()) for name in line.split()}
PURE = {name for name, rank in RANK.items() if rank >= RANK["step"]} - {"server"} | {"parallel", "turns"}
IMPURE_IMPORTS = {
    "io", "os", "pathlib", "random", "redis", "rq", "secrets", "shutil", "socket", "subprocess", "tempfile", "threading",
    "time",
}  # fmt: skip
IMPURE_CALLS = {"input", "now", "open", "print", "today", "utcnow", "uuid1", "uuid4"}


def module_of(file: Path) -> str:
    """The top-level module that a file belongs to: `cli/show.py` is `cli`."""
    return file.relative_to(ROOT).with_suffix("").parts[0]


FILES = sorted(ROOT.rglob("*.py"))
SOURCES = sorted([*FILES, *ROOT.rglob("*.lua")])
SCRIPTS = sorted((ROOT / "lua").glob("*.lua"))
MODULES = RANK.keys() | {module_of(file) for file in FILES}


def imported(file: Path) -> Iterator[str]:
    """Every dotted name that a file imports, wherever it does so."""
    package = ["flowlib", *file.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def known(file: Path) -> set[str]:
    """The other modules of flowlib that a file imports; `from flowlib import App` counts as `__init__`."""
    names = [name.split(".") for name in imported(file)]
    ours = {(name[1:] or ["__init__"])[0] for name in names if name[0] == "flowlib"} - {"__version__"}
    return {name if name in MODULES else "__init__" for name in ours} - {module_of(file)}


def label(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", FILES, ids=label)
def test_imports_go_downward_only(file: Path) -> None:
    module = module_of(file)
    unplaced = {module, *known(file)} - RANK.keys()
    assert not unplaced, f"{unplaced} have no place in LAYERS: give them one"
    upward = {name for name in known(file) if RANK[name] < RANK[module]}
    assert not upward, f"{label(file)} imports from above itself: {', '.join(sorted(upward))}"


def test_no_two_modules_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for file in FILES:
        graph.setdefault(module_of(file), set()).update(known(file))
    assert set(TopologicalSorter(graph).static_order()) >= set(graph)


@pytest.mark.parametrize("file", [file for file in FILES if module_of(file) in PURE], ids=label)
def test_pure_modules_know_no_redis_no_clock_and_no_chance(file: Path) -> None:
    assert not {name.split(".")[0] for name in imported(file)} & IMPURE_IMPORTS
    nodes = list(ast.walk(ast.parse(file.read_text())))
    given = {node.arg for node in nodes if isinstance(node, ast.arg)}  # the caller's to answer for
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    assert not {call.attr for call in calls if isinstance(call, ast.Attribute)} & IMPURE_CALLS
    assert not {call.id for call in calls if isinstance(call, ast.Name)} & IMPURE_CALLS - given


def test_the_supervisor_knows_nothing_of_steps() -> None:
    """It and what it is made of know where leases are kept, and the boards that workers write on."""
    files = [ROOT / "worker" / f"{name}.py" for name in ("supervisor", "keeper", "child")]
    assert {name for file in files for name in known(file)} == {"board", "store", "wire"}
    beside = {name for file in files for name in imported(file) if name.startswith("flowlib.worker.")}
    assert {name.split(".")[2] for name in beside} == {"child", "keeper"}


def test_the_private_server_knows_only_the_errors_and_is_known_to_cli_and_testing_only() -> None:
    assert known(ROOT / "server.py") == {"errors"}
    assert {module_of(file) for file in FILES if "server" in known(file)} <= {"cli", "testing"}


@pytest.mark.parametrize("script", SCRIPTS, ids=label)
def test_every_script_opens_with_its_keys_arguments_and_reply(script: Path) -> None:
    """After `#!lua flags=...`, if it has such a line."""
    lines = script.read_text().removeprefix("#!").splitlines()[:25]
    header = "\n".join(takewhile(lambda line: line.startswith(("--", "lua")), lines))
    missing = [word for word in ("KEYS", "ARGV", "reply") if word not in header]
    assert not missing, f"{script.name} does not say its {', '.join(missing)}"


@pytest.mark.parametrize("file", SOURCES, ids=label)
def test_no_file_is_longer_than_one_idea(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 420
