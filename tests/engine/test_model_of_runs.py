"""The scripts against a model of them: whatever comes in whatever order, they keep their promises."""

from __future__ import annotations

import pytest
import redis as redis_py
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from .conftest import Desk
from .machine import Machine
from .machine_of_events import MachineWithEvents


def drive(
    machine: type[Machine], desk: Desk, admin: redis_py.Redis, examples: int, steps: int, new: bool = False
) -> None:
    """`new`: other examples each time."""

    class OnThisServer(machine):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(desk, admin)

    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=not new,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(OnThisServer, settings=how)


@pytest.mark.timeout(400)  # making a failure small may take five minutes
def test_whatever_comes_in_whatever_order_the_scripts_keep_their_promises(desk: Desk, redis: redis_py.Redis) -> None:
    """BEHAVIOURS 39, 40, 97, 98, 130, 132, 142, 146, 147; I1, I2, I4, I6, I7."""
    drive(Machine, desk, redis, examples=60, steps=40)


@pytest.mark.timeout(400)
def test_so_they_do_with_events_that_runs_wait_for_and_values(desk: Desk, redis: redis_py.Redis) -> None:
    """BEHAVIOURS 56, 59, 62, 63, 64; I1, I2, I4, I5, I7."""
    drive(MachineWithEvents, desk, redis, examples=45, steps=40)


@pytest.mark.chaos
@pytest.mark.parametrize("machine", [Machine, MachineWithEvents])
def test_the_scripts_keep_their_promises_for_long(machine: type[Machine], desk: Desk, redis: redis_py.Redis) -> None:
    """I1, I2, I4, I5, I6, I7."""
    drive(machine, desk, redis, examples=400, steps=60, new=True)
