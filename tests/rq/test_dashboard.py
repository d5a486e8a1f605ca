"""`rq-dashboard -j` looks at a busy fleet; but at its workers while they are idle, for there it asks for pickles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from rq.serializers import DefaultSerializer, JSONSerializer

from tests.patience import until

from .conftest import Shop

cli = pytest.importorskip("rq_dashboard.cli")


@pytest.fixture
def dashboard(shop: Shop) -> Iterator[Any]:
    """A client of the pages, as `rq-dashboard -j` would serve them."""
    pages = cli.make_flask_app(None, None, None, "")
    pages.config["RQ_DASHBOARD_REDIS_URL"] = [shop.url]
    cli.service_config.serializer = JSONSerializer
    cli.setup_rq_connection(pages)
    yield pages.test_client()
    cli.service_config.serializer = DefaultSerializer


def data(dashboard: Any, path: str) -> Any:
    answer = dashboard.get(f"/0/data/{path}.json")
    assert answer.status_code == 200, answer.text
    return answer.get_json()


def listed(dashboard: Any, registry: str) -> set[str]:
    return {job["id"] for job in data(dashboard, f"jobs/flow/{registry}/20/asc/1")["jobs"]}


def test_it_shows_queues_registries_jobs_and_workers(shop: Shop, dashboard: Any) -> None:
    worker = shop.flow_worker()
    broken, napping = shop.send("break"), shop.send("nap", seconds=3600)
    until(lambda: shop.get(broken).finished and shop.get(napping).state == "sleeping")
    until(lambda: shop.client.hget(f"rq:worker:{worker.name}", "state") == b"idle")
    (seen,) = data(dashboard, "workers")["workers"]
    assert (seen["name"], seen["queues"], seen["current_job"]) == (worker.name, ["flow"], "idle")
    running = shop.send("hold")
    until(lambda: shop.queue.started_job_registry.get_job_ids(cleanup=False))
    waiting = shop.send("order", amount=1)
    (queue,) = data(dashboard, "queues")["queues"]
    counts = {key.removesuffix("_job_registry_count"): value for key, value in queue.items() if key.endswith("count")}
    assert (queue["name"], queue["count"]) == ("flow", 1)
    assert {name: counts[name] for name in ("started", "failed", "scheduled")} == dict.fromkeys(
        ("started", "failed", "scheduled"), 1
    )
    assert listed(dashboard, "queued") == {waiting}
    assert listed(dashboard, "started") == {f"{running}-hold"}
    assert listed(dashboard, "failed") == {f"{broken}-break"}
    assert listed(dashboard, "scheduled") == {f"{napping}-nap"}
    assert running in listed(dashboard, "finished")
    failed = data(dashboard, f"job/{broken}-break")
    assert (failed["status"], failed["description"]) == ("failed", "shop/broken: break")
    assert "ValueError: it broke" in failed["exc_info"]
    for page in ("", "0/view/workers", "0/view/jobs/flow/failed/20/asc/1", f"0/view/job/{broken}-break"):
        assert dashboard.get(f"/{page}").status_code == 200
    shop.open_gate()
    assert shop.app.runs.result(running, 10) == "held"
    assert shop.diary().count("hold") == 1


def test_its_buttons_strand_no_run_and_repeat_nothing(shop: Shop, dashboard: Any) -> None:
    """I3, I4."""
    waiting = shop.send("order", amount=1)
    assert dashboard.post(f"/job/{waiting}/delete").status_code == 200
    assert shop.queue.job_ids == []
    assert shop.house.reconcile(suspicion=0.0) == [waiting]
    shop.flow_worker()
    broken = shop.send("break")
    until(lambda: shop.get(broken).finished and shop.get(waiting).finished)
    assert dashboard.post(f"/job/{broken}-break/requeue").status_code == 200
    assert dashboard.post("/requeue/flow").status_code == 200
    assert shop.app.runs.result(shop.send("order", amount=2), 10) == 3
    assert sorted(shop.diary()) == sorted(["reserve", "charge", "break", "reserve", "charge"])
    until(lambda: shop.faults() == [])
