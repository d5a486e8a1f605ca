"""README's first example is real: it is taken from the page, given its four step functions, and run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flowlib.worker import FlowWorker

README = Path(__file__).parents[2] / "README.md"


@dataclass(frozen=True)
class Check:
    is_valid: bool
    errors: list[str]


def steps(called: list[str]) -> dict[str, Any]:
    """The plain functions that the example calls, which the page leaves to the reader."""

    def validate_contents(key: str) -> Check:
        called.append("validate")
        return Check(key.endswith(".csv"), ["no list"])

    def send_import_failed_email(upload: Any, errors: list[str]) -> None:
        called.append(f"mail {upload.user_email} {errors}")

    def enrich_addresses(key: str) -> list[str]:
        called.append("enrich")
        return [key, key]

    def create_contacts(rows: list[str]) -> int:
        called.append("create")
        return len(rows)

    return {f.__name__: f for f in (validate_contents, send_import_failed_email, enrich_addresses, create_contacts)}


@pytest.fixture
def page(redis_url: str) -> Iterator[tuple[ModuleType, list[str]]]:
    (source,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)[:1]
    declared, sent = source.split("\napp.send(")
    called: list[str] = []
    module = sys.modules["readme_example"] = ModuleType("readme_example")
    vars(module).update(steps(called))
    exec(
        compile(declared.replace("timedelta(hours=1)", "timedelta(milliseconds=10)"), "README.md", "exec"), vars(module)
    )
    module.app.connect(redis_url)
    exec(compile(f"app.send({sent}", "README.md", "exec"), vars(module))
    yield module, called
    del sys.modules["readme_example"]


def test_the_first_example_of_readme_does_what_it_says(page: tuple[ModuleType, list[str]]) -> None:
    module, called = page
    worker = FlowWorker(app=module.app)
    worker.work(max_jobs=5)
    (run,) = module.app.runs.of_event("upload-17")
    assert module.app.runs.result(run, timeout=20) == 2
    assert called == ["validate", "enrich", "create"]


def test_its_other_branch_mails_the_user(page: tuple[ModuleType, list[str]]) -> None:
    module, called = page
    module.app.send(module.uploaded(module.Upload("list.exe", "bob@example.com"), id="upload-18"))
    FlowWorker(app=module.app).work(max_jobs=8)
    (run,) = module.app.runs.of_event("upload-18")
    assert module.app.runs.result(run, timeout=20) == 0
    assert "mail bob@example.com ['no list']" in called
