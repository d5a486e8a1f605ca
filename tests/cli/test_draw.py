"""A run's history as lanes, and lanes as lines of text drawn to scale."""

from __future__ import annotations

from typing import Any

import pytest

from flowlib.cli.draw import SHADES, draw
from flowlib.cli.lanes import BACKOFF, FAILED, LOST, OK, RUNNING, SLEEP, WAIT, Lane, Segment, lanes_of
from flowlib.model import HistoryEntry

Told = tuple[float, str, str] | tuple[float, str, str, dict[str, Any]]
RETRY = {"level": "step", "outcome": "retry", "retry_at": 0.0}
CALL = {"level": "function", "outcome": "retry", "retry_at": 0.0}


def segments(history: list[Told], now: float = 100.0) -> dict[str, list[tuple[str, float, float]]]:
    entries = [HistoryEntry(at, kind, step, 1, "w", detail[0] if detail else {}) for at, kind, step, *detail in history]
    return {lane.step: [(s.kind, s.start, s.end) for s in lane.segments] for lane in lanes_of(entries, now)}


def test_a_step_waits_runs_fails_backs_off_and_runs_again() -> None:
    history: list[Told] = [
        (0, "started", ""),
        (0, "queued", ""),
        (1, "claimed", ""),
        (2, "claimed", "1:a"),
        (3, "failed", "1:a", RETRY),
        (7, "queued", "1:a"),
        (8, "claimed", "1:a"),
        (9, "log", "1:a"),
        (10, "recorded", "1:a", {"outcome": "ok"}),
        (10, "completed", "1:a"),
    ]
    assert segments(history) == {
        "(start)": [(WAIT, 0, 1), (OK, 1, 2)],
        "a": [(FAILED, 2, 3), (BACKOFF, 3, 7), (WAIT, 7, 8), (OK, 8, 10)],
    }


def test_a_sleep_lasts_until_it_is_woken_and_its_worker_goes_on_with_the_next_step() -> None:
    history: list[Told] = [
        (0, "sleeping", "1:nap", {"until": 5.0}),
        (5, "queued", "1:nap"),
        (6, "claimed", "1:nap"),
        (6, "recorded", "1:nap", {"outcome": "ok"}),
        (7, "queued", "1:b"),
        (9, "claimed", "1:b"),
        (11, "recorded", "1:b", {"outcome": "failed"}),
        (11, "failed", "1:b", {"bytes": 0}),
    ]
    assert segments(history) == {
        "nap": [(SLEEP, 0, 5), (WAIT, 5, 6), (OK, 6, 6)],
        "b": [(WAIT, 7, 9), (FAILED, 9, 11)],
    }


def test_an_error_between_steps_brings_the_last_step_back_until_the_next_one_is_found() -> None:
    history: list[Told] = [
        (0, "claimed", "1:a"),
        (1, "recorded", "1:a", {"outcome": "ok"}),
        (2, "failed", "1:a", CALL),
        (4, "queued", "1:a"),
        (5, "claimed", "1:a"),
        (6, "claimed", "1:b"),
    ]
    assert segments(history, now=8) == {
        "a": [(OK, 0, 1), (BACKOFF, 2, 4), (WAIT, 4, 5), (OK, 5, 6)],
        "b": [(RUNNING, 6, 8)],
    }


@pytest.mark.parametrize("kind", ["lost", "released"])
def test_what_a_worker_did_not_finish_is_lost_and_waits_again(kind: str) -> None:
    history: list[Told] = [(0, "claimed", "1:a"), (4, kind, "1:a"), (6, "claimed", "1:a")]
    assert segments(history, now=9) == {"a": [(LOST, 0, 4), (WAIT, 4, 6), (RUNNING, 6, 9)]}


def test_a_cancelled_run_ends_what_it_did() -> None:
    assert segments([(0, "claimed", "1:a"), (3, "cancelled", "1:a")]) == {"a": [(LOST, 0, 3)]}


def test_a_history_without_its_beginning_tells_what_is_left() -> None:
    history: list[Told] = [(5, "recorded", "1:a", {"outcome": "ok"}), (6, "claimed", "1:b")]
    assert segments(history, now=7) == {"a": [], "b": [(RUNNING, 6, 7)]}


def lines(lanes: list[Lane], seconds: float, *, width: int = 60, unicode: bool = True) -> list[str]:
    return [line.plain for line in draw(lanes, 0, seconds, width=width, unicode=unicode)]


def test_bars_are_to_scale() -> None:
    lane = Lane("a", [Segment(WAIT, 0, 10), Segment(OK, 10, 30), Segment(SLEEP, 30, 40)])
    axis, bar, legend = lines([lane], 40, width=1 + 40 + 18)
    assert bar[2:42] == "░" * 10 + "█" * 20 + "─" * 10
    assert axis[2:42].split() == ["0", "20", "s", "40", "s"]
    assert legend.split() == ["░░", "queued", "██", "ok", "──", "sleep"]


def test_what_ran_is_seen_however_short_and_what_waited_only_if_it_shows() -> None:
    lane = Lane("a", [Segment(WAIT, 0, 0.001), Segment(FAILED, 0.001, 0.002), Segment(BACKOFF, 0.002, 3600)])
    _, bar, _ = lines([lane], 3600)
    assert bar[2:].startswith("▓┄")
    late = Lane("b", [Segment(OK, 3600, 3600)])
    assert "█" in lines([late], 3600)[1]


def test_ascii_has_its_own_shades() -> None:
    lane = Lane("a", [Segment(kind, n, n + 1) for n, kind in enumerate(SHADES)])
    drawn = "\n".join(lines([lane], len(SHADES), unicode=False))
    assert drawn.isascii()
    assert all(SHADES[kind][1] * 2 in drawn for kind in SHADES)


@pytest.mark.parametrize("width", [20, 40, 80, 160])
def test_it_keeps_to_the_width(width: int) -> None:
    """As far as there is room at all; a long name is cut, and a wide one counts by its cells."""
    lanes = [Lane("列" * 30, [Segment(OK, 0, 5)]), Lane("b" * 80, [Segment(FAILED, 5, 9), Segment(OK, 9, 4000)])]
    from rich.cells import cell_len

    drawn = lines(lanes, 4000, width=width)[:-1]
    assert max(cell_len(line) for line in drawn) <= max(width, 28 + 20 + 18)


def test_a_run_that_took_no_time_can_be_drawn() -> None:
    assert "█" in lines([Lane("a", [Segment(OK, 0, 0)])], 0)[1]
    assert lines([], 0)
