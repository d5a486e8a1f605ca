"""What of the libraries gets into a Redis script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flowlib
from flowlib.assembly import assemble

LUA = Path(flowlib.__file__).parent / "lua"
LIBRARIES = sorted((LUA / "lib").glob("*.lua"))
SCRIPTS = sorted(LUA.glob("*.lua"))
DEFINED = re.compile(r"^local function (\w+)", re.MULTILINE)


def text_of(script: str) -> str:
    return assemble(script).decode()


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda file: file.stem)
def test_a_library_is_nothing_but_definitions(library: Path) -> None:
    """What stands between them would come and go with the one above it."""
    lines = [line for line in library.read_text().splitlines() if line[:1].strip() and not line.startswith("--")]
    odd = [line for line in lines if not re.match(r"local |end$|\}$|\w+ = function", line)]
    assert odd == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.stem)
def test_a_function_is_in_a_script_if_and_only_if_it_is_named_there(script: Path) -> None:
    text = re.sub(r"--.*", "", text_of(script.stem))
    mine = set(DEFINED.findall(text))
    unused = {name for name in mine if len(re.findall(rf"\b{name}\b", text)) == 1}
    every = {name for library in LIBRARIES for name in DEFINED.findall(library.read_text())}
    lacking = {name for name in every - mine if re.search(rf"(?<![.:\w']){name}\(", text)}
    assert (unused, lacking) == (set(), set())


def test_a_function_comes_with_what_it_needs_and_after_it() -> None:
    text = text_of("commit_step")
    assert text.startswith("#!lua flags=allow-oom\n")
    assert text.index("local P, R") < text.index("local function is_held") < text.index("if not is_held(lease)")
    assert "local function iso(" in text
    assert "local function put_job(" in text
    assert "local function forget_end(" not in text
