"""What Prometheus is told. docs/serving.md lists the names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)

Kind = TypeVar("Kind", Counter, Gauge, Histogram, Info)


class Metrics:
    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._requests = self._made(
            Counter, "requests", "Requests by route and status.", labelnames=["route", "status"]
        )
        about = "From a request's first line to its answer's last byte."
        self._seconds = self._made(Histogram, "request_seconds", about, labelnames=["route"], buckets=SECONDS)
        self._runs = self._made(Histogram, "run_seconds", "One run of the model.", buckets=SECONDS)
        self._rows = self._made(Histogram, "run_rows", "Rows that one run computed.", buckets=ROWS)
        self._waiting = self._made(Gauge, "queue_depth", "Requests that wait for a run.")
        self._ready = self._made(Gauge, "ready", "1 where the server is ready.")
        self._model = self._made(Info, "model", "What is served.")

    def _made(self, kind: type[Kind], name: str, about: str, **options: Any) -> Kind:
        return kind(name, about, namespace="packhouse", registry=self._registry, **options)

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def run(self, rows: int, seconds: float) -> None:
        self._rows.observe(rows)
        self._runs.observe(seconds)

    def model(self, **labels: str) -> None:
        self._model.info(labels)

    def watch(self, *, waiting: Callable[[], float], ready: Callable[[], float]) -> None:
        """Looked up when somebody asks."""
        self._waiting.set_function(waiting)
        self._ready.set_function(ready)

    def text(self) -> bytes:
        return generate_latest(self._registry)
