"""The public API is typed end to end: both checkers accept every right use and refuse every wrong one, where it is."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowlib import App, AsyncStep, Middleware, Step
from flowlib.promises import Promises
from flowlib.runs import Called, Runs

ROOT = Path(__file__).parents[2]
RIGHT, WRONG = Path(__file__).with_name("right.py"), Path(__file__).with_name("wrong.py")

Place = tuple[str, int]


def run(*command: str | Path) -> str:
    """What a checker says; it may find errors, but not fail."""
    done = subprocess.run([sys.executable, "-m", *command], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(tmp_path: Path) -> set[Place]:
    """Where mypy sees errors, by the project's own settings."""
    told = run("mypy", "--no-pretty", RIGHT, WRONG)
    return {(Path(path).name, int(line)) for path, line in re.findall(r"^(.+?):(\d+): error: ", told, re.MULTILINE)}


def pyright(tmp_path: Path) -> set[Place]:
    """Where pyright sees errors in copies of the files, by the project's own settings, which leave one of them out."""
    for file in (RIGHT, WRONG):
        shutil.copy(file, tmp_path)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
    settings |= {"include": ["."], "exclude": [], "extraPaths": [str(ROOT)], "venvPath": str(ROOT)}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    told = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, "--project", tmp_path))
    assert told["summary"]["filesAnalyzed"] == 2
    return {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in told["generalDiagnostics"]}


def marked(path: Path) -> set[Place]:
    lines = path.read_text().splitlines()
    return {(path.name, number) for number, line in enumerate(lines, 1) if line.endswith("# error")}


@pytest.mark.parametrize("errors", [mypy, pyright])
def test_right_uses_pass_and_each_wrong_one_is_refused_where_it_is(
    errors: Callable[[Path], set[Place]], tmp_path: Path
) -> None:
    assert not marked(RIGHT)
    assert len(marked(WRONG)) > 50
    assert errors(tmp_path) == marked(WRONG)


# -- every call ------------------------------------------------------------------------------------------------------

NOT_FOR_USERS = {"location", "open", "prepare", "prepare_all", "store", "result_of_call", "name"}
RECEIVERS = {App: "app", Runs: "app.runs", Promises: "app.promises", Step: "Step.step", AsyncStep: "AsyncStep.step",
             Called: "app.call()", Middleware: "Middleware"}  # fmt: skip


def calls_in(path: Path) -> set[str]:
    """Everything that is asked of a name: `app.runs.list`; `Step.step.run`, of a parameter of that type; hooks of a class."""
    found = set[str]()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{ast.unparse(base)}.{each.name}" for base in node.bases for each in functions_in(node)}
        kinds = {arg.arg: ast.unparse(arg.annotation) for arg in arguments_of(node) if arg.annotation is not None}
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute):
                text = dotted(each).replace("step.options()", "step").replace("called.", "app.call().")
                found.add(f"{kinds.get('step')}.{text}" if text.startswith("step.") else text)
    return found


def dotted(node: ast.expr) -> str:
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            return f"{dotted(node.value)}.{node.attr}"
        case ast.Call():
            return f"{dotted(node.func)}()"
    return "?"


def functions_in(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    return (each for each in node.body if isinstance(each, ast.FunctionDef))


def arguments_of(node: ast.stmt) -> list[ast.arg]:
    return node.args.args if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []


@pytest.mark.parametrize("path", [RIGHT, WRONG], ids=["right", "wrong"])
@pytest.mark.parametrize("kind", RECEIVERS)
def test_every_public_call_is_used_rightly_and_wrongly(kind: Any, path: Path) -> None:
    public = {name for name in dir(kind) if not name.startswith("_")} - NOT_FOR_USERS
    used = calls_in(path)
    assert {name for name in public if f"{RECEIVERS[kind]}.{name}" not in used} == set()
    assert public
