"""Metrics as Prometheus would read them."""

from __future__ import annotations

from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

from flowlib.metrics import render
from flowlib.store import Store


class Numbers:
    """Samples by their names, without `flow_`, and labels. KeyError when there is no such series."""

    def __init__(self, text: bytes) -> None:
        families = text_string_to_metric_families(text.decode())
        self.samples = {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    @classmethod
    def at(cls, url: str) -> Numbers:
        store = Store(url)
        try:
            return cls(render(store))
        finally:
            store.close()

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[f"flow_{name}", frozenset(labels.items())]

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The sums of a metric's samples by these labels, without those that are 0."""
        sums: dict[tuple[str, ...], float] = defaultdict(float)
        for (sample, pairs), value in self.samples.items():
            if sample == f"flow_{name}":
                sums[tuple(dict(pairs)[label] for label in labels)] += value
        return {key: value for key, value in sums.items() if value}

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}
