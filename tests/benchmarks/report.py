"""Shows what was measured as tables, for people. Measures nothing, and judges nothing but by the aims."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from tests.benchmarks import parts
from tests.benchmarks.aims import judged
from tests.benchmarks.parts import MORE, PARTS, Part
from tests.benchmarks.results import Results
from tests.benchmarks.roster import FLOWLIB, SYSTEMS


def show(console: Console, results: Results) -> None:
    console.print(f"\n{describe(results)}\nEach figure: the median of the rounds (the least..the most of them).")
    for part in PARTS:
        for table in part.tables if part.name in results.figures else ():
            console.print(f"\n[bold]{table.title}[/bold]")
            console.print(_tall(results, part, table) if part.systems == (FLOWLIB,) else _wide(results, part, table))
            console.print(table.note)
    _show_lacks(console, results)
    _show_aims(console, results)
    _show_troubles(console, results)


def describe(results: Results) -> str:
    """The machine, in one paragraph."""
    packages = results.machine.get("packages", {})
    rest = {name: value for name, value in results.machine.items() if name != "packages"}
    return "\n".join([
        ", ".join(f"{name} {value}" for name, value in (rest | results.options).items()),
        ", ".join(f"{name} {value}" for name, value in packages.items()),
    ])  # fmt: skip


def _wide(results: Results, part: Part, table: parts.Table) -> Table:
    """A row for each system; beside a figure that can be better or worse, how many times as good flowlib is."""
    headings = [""]
    for column in table.columns:
        headings += [column.heading, "flowlib is\nbetter by"] if column.better else [column.heading]
    made = new_table(*headings)
    for system in results.figures[part.name]:
        cells = [system]
        for column in table.columns:
            values = results.values(part.name, system, column.figure)
            cells.append("-" if not values else number(median(values)) if table.plain else spread(values))
            if column.better:
                times = results.advantage(part.name, column.figure, system, column.better)
                cells.append("" if times is None or system == FLOWLIB.name else f"× {number(times)}")
        if any(cell not in ("-", "") for cell in cells[1:]):
            made.add_row(*cells)
    return made


def _tall(results: Results, part: Part, table: parts.Table) -> Table:
    made = new_table("", FLOWLIB.name)
    for column in table.columns:
        if values := results.values(part.name, FLOWLIB.name, column.figure):
            made.add_row(column.heading, spread(values))
    return made


def _show_lacks(console: Console, results: Results) -> None:
    console.print("\n[bold]What each figure does not pay for[/bold]")
    measured = {system for by_system in results.figures.values() for system in by_system}
    for system in SYSTEMS:
        if system.name in measured:
            console.print(f"  {system.name}: {system.lacks}")
        elif system.name in results.skipped:
            console.print(f"  {system.name}: not measured: {results.skipped[system.name]}", markup=False)


def _show_aims(console: Console, results: Results) -> None:
    table = new_table("aim", "", "reached", "")
    for aim, value, said in judged(results):
        bound = f"{'≥' if aim.better == MORE else '≤'} {aim.bound:,g}"
        table.add_row(aim.what, bound, number(value), said)
    if table.row_count:
        console.print("\n[bold]Aims[/bold], of a machine of two quiet cores", table)


def _show_troubles(console: Console, results: Results) -> None:
    loops = []
    for system, figures in results.figures.get("steps", {}).items():
        loops += figures.get("loop_ms", [])
        if again := sum(figures.get("again", [])):
            console.print(f"{system}: {again:.0f} bodies were run twice")
    if loops:
        console.print(
            f"A fixed Python loop took {min(loops):.1f} to {max(loops):.1f} ms meanwhile: read ratios above all."
        )


def new_table(*headings: str) -> Table:
    """Words to the left, figures to the right."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def spread(values: Sequence[float]) -> str:
    middle = number(median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}..{number(max(values))})"


def number(value: float) -> str:
    """Three digits that mean something."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
