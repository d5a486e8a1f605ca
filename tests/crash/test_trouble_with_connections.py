"""Connections that are cut at any byte, either way, or fall silent: workers and producers go on, and nothing is repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowlib.server import Server

from .proxy import DOWN, UP
from .troubled import Proxied, proxied

PER_CUT = 3000  # bytes on average


@pytest.fixture
def fleet(fresh_server: Server, tmp_path: Path) -> Iterator[Proxied]:
    with proxied(fresh_server, tmp_path / "notes") as fleet:
        yield fleet


@pytest.mark.slow
def test_connections_cut_at_any_byte_lose_and_repeat_nothing(fleet: Proxied) -> None:
    """BEHAVIOURS 146; I1, I3, I5: and nothing waits for a lease to run out."""
    cut_again_and_again(fleet, workers=2, runs=60, at_least=60)


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("round", range(4))
def test_connections_cut_thousands_of_times_lose_and_repeat_nothing(fleet: Proxied, round: int) -> None:
    """BEHAVIOURS 146; I1, I3, I5."""
    cut_again_and_again(fleet, workers=4, runs=1200, at_least=1500)


def cut_again_and_again(fleet: Proxied, workers: int, runs: int, at_least: int) -> None:
    fleet.start(workers, runs, seconds=runs / 60)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for direction in (UP, DOWN):
        fleet.proxy.cut_after(direction, gaps(random.Random(f"{seed}{direction}")))
    fleet.wait()
    cuts = fleet.proxy.cuts
    for direction in (UP, DOWN):
        fleet.proxy.cut_after(direction, ())
    assert fleet.faults() == []
    assert cuts >= at_least


def gaps(chance: random.Random) -> Iterator[int]:
    while True:
        yield chance.randint(0, 2 * PER_CUT)


@pytest.mark.chaos
@pytest.mark.parametrize("seconds", [1.5, 8.0])
@pytest.mark.parametrize("directions", [(UP, DOWN), (DOWN,)], ids=["both-ways", "replies-only"])
def test_connections_that_fall_silent_are_given_up_and_made_anew(
    fleet: Proxied, directions: tuple[str, ...], seconds: float
) -> None:
    """BEHAVIOURS 146; I3, I5: as when a firewall forgets them. Those that only listen notice it as well."""
    fleet.start()
    fleet.proxy.hush(*directions)
    fleet.endure(seconds)
    fleet.proxy.speak()
    assert fleet.faults() == []
