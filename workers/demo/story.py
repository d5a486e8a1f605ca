"""The demo's story: an import whose worker is killed, then an invalid list. Knows what a user of flowlib knows."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flowlib import Run
from workers.contacts import Upload, app, uploaded
from workers.contacts_io import Settings
from workers.demo.address_service import read_calls
from workers.demo.contact_list import make_contact_list
from workers.demo.ledger import START, Line, read_ledger
from workers.demo.report import Checks, count_contacts, returned_twice, show_attempts, show_mail, started_again
from workers.demo.stage import FLOW, Stage

USER = "ada@example.com"
PATIENCE = 60.0  # seconds; the whole story takes less
STEPS_BESIDE_PARTS = 6


def tell_story(stage: Stage, console: Console) -> list[str]:
    """Returns the claims that did not hold."""
    checks = Checks(console)
    app.connect(stage.redis_url)
    import_with_a_crash(stage, console, checks)
    refuse_an_invalid_list(stage, console, checks)
    return checks.failed


def import_with_a_crash(stage: Stage, console: Console, checks: Checks) -> None:
    made = make_contact_list(stage.store / "2026" / "list.csv")
    console.rule("An import whose worker is killed")
    console.print(f"2026/list.csv has {made.good} good rows and {made.bad} bad ones. Worker A takes it.")
    first = stage.start_worker()
    run_id = start_run(Upload("2026/list.csv", USER), "upload-17")

    parts = -(-made.good // Settings.part_rows)
    with progress(console, parts + STEPS_BESIDE_PARTS) as show:
        watch(run_id, show, lambda run: f"enrich-addresses[{parts // 3}]" in recorded_steps(run))
        wait_until(lambda: read_ledger(stage.ledger)[-1].what == START)
        first.kill()
        before = read_ledger(stage.ledger)
        recorded = recorded_steps(app.runs.get(run_id))
        console.print(
            f"[red]kill -9[/] worker A, {len(recorded)} steps recorded. Worker B waits for the end of A's lease."
        )
        second = stage.start_worker()
        run = watch(run_id, show, lambda run: run.finished)
    second.stop()

    after = read_ledger(stage.ledger)
    subprocess.run([FLOW, "show", run_id], env=stage.environment, check=True)
    show_attempts(console, run, after, {first.pid: "A", second.pid: "B"})
    show_neighbours(console, stage, since=0)
    check_import(stage, checks, run, made.good)
    check_ledger(checks, run_id, recorded, before, after)


def check_import(stage: Stage, checks: Checks, run: Run, good: int) -> None:
    total, coded = count_contacts(stage.crm)
    checks.check(run.status == "completed" and run.result == good, f"the run is {run.status}: {run.result} contacts")
    checks.check(total == good, f"the CRM has each of the {good} good contacts once, {coded} with a zip code")
    checks.check(
        subjects(stage, 0) == ["Your contact list 2026/list.csv was imported"], "one mail went out and says so"
    )


def check_ledger(checks: Checks, run_id: str, recorded: set[str], before: list[Line], after: list[Line]) -> None:
    """A body that had returned when the worker was killed, but was not recorded yet, may return a second time."""
    again = started_again(recorded, before, after, run_id)
    checks.check(not again, f"of the {len(recorded)} steps recorded before the kill, no body began again")
    twice = returned_twice(after, run_id) - ({line.step for line in before} - recorded)
    checks.check(not twice, "by the ledger, no recorded step ran twice")


def refuse_an_invalid_list(stage: Stage, console: Console, checks: Checks) -> None:
    made = make_contact_list(stage.store / "2026" / "broken.csv", 400, bad_every=3)
    console.rule("An invalid list takes the other branch")
    contacts_before, mails_before = count_contacts(stage.crm), len(stage.mails)
    worker = stage.start_worker()
    run_id = start_run(Upload("2026/broken.csv", USER), "upload-18")
    app.runs.result(run_id, timeout=PATIENCE)
    worker.stop()

    subprocess.run([FLOW, "show", run_id], env=stage.environment, check=True)
    show_neighbours(console, stage, since=mails_before)
    steps = [step.id for step in app.runs.get(run_id).steps]
    checks.check(steps == ["validate-contents", "notify-invalid"], f"{made.bad} bad rows lead to {' and '.join(steps)}")
    checks.check(
        subjects(stage, mails_before) == ["Your contact list 2026/broken.csv was not imported"],
        "one mail says so",
    )
    checks.check(count_contacts(stage.crm) == contacts_before, "the CRM is as it was")


def start_run(upload: Upload, id: str) -> str:
    event_id = app.send(uploaded(upload, id=id))
    wait_until(lambda: bool(app.runs.of_event(event_id)))
    (run_id,) = app.runs.of_event(event_id)
    return run_id


def recorded_steps(run: Run) -> set[str]:
    return {step.id for step in run.steps if step.status == "completed"}


def watch(run_id: str, show: Callable[[Run], None], condition: Callable[[Run], bool]) -> Run:
    """Show the run until the condition holds."""

    def look() -> bool:
        run = app.runs.get(run_id)
        show(run)
        return condition(run)

    wait_until(look)
    return app.runs.get(run_id)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the demo waited for {PATIENCE:.0f} s in vain")
        time.sleep(0.05)


@contextmanager
def progress(console: Console, steps: int) -> Iterator[Callable[[Run], None]]:
    columns = [
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    ]
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=steps)

        def show(run: Run) -> None:
            attempt = f", attempt {run.attempt}" if run.attempt > 1 else ""
            bar.update(task, completed=len(recorded_steps(run)), description=f"{run.state} {run.step}{attempt}")

        yield show


def show_neighbours(console: Console, stage: Stage, *, since: int) -> None:
    calls = ", ".join(f"{number} {fate}" for fate, number in read_calls(stage.address_service).items())
    console.print(f"Calls of the address service: {calls}.")
    for mail in stage.mails[since:]:
        show_mail(console, mail)
    console.print()


def subjects(stage: Stage, since: int) -> list[str]:
    return [str(mail["Subject"]) for mail in stage.mails[since:]]
