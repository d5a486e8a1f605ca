"""The public API is typed end to end: both checkers accept every right use and refuse every wrong one, where it is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

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
    told = run("mypy", "--no-incremental", "--no-pretty", RIGHT, WRONG)
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
