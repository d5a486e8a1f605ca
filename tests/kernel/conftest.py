"""Properties are judged by what they find and never by how long an example takes: a machine may be busy.

The examples are the same in every run, so that nobody's change is refused for what another one's dice have found. With
`--hypothesis-profile=anew` they are drawn anew.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("anew", settings.get_profile("unhurried"), max_examples=200)
settings.register_profile("unhurried", settings.get_profile("unhurried"), derandomize=True, database=None)
settings.load_profile("unhurried")
