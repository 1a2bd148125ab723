"""What `GET /metrics` tells, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunewell.serving.batcher import Batch

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one service, in a registry of their own.

    Args:
        waiting: rows in the queue now.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own: dict[str, Any] = {"registry": self.registry, "namespace": "tunewell"}
        self.requests = Counter("requests", "Requests answered.", ["path", "status"], **own)
        self.seconds = Histogram("request_seconds", "Seconds to the answer.", ["path"], buckets=SECONDS, **own)
        self.in_flight = Gauge("requests_in_flight", "Requests under way.", **own)
        self.texts = Counter("texts", "Texts given to a model.", ["model"], **own)
        self.tokens = Counter("tokens", "Tokens given to a model, without padding.", ["model"], **own)
        self.batch_rows = Histogram("batch_rows", "Texts a batch.", buckets=ROWS, **own)
        self.batch_requests = Histogram("batch_requests", "Requests a batch.", buckets=ROWS, **own)
        self.batch_seconds = Histogram("batch_seconds", "Seconds a batch.", buckets=SECONDS, **own)
        self.reloads = Counter("reloads", "Models loaded again.", ["model", "result"], **own)
        self.models = Gauge("model_info", "1 for each model that serves.", ["model", "version"], **own)
        Gauge("queue_rows", "Texts that wait for a batch.", **own).set_function(waiting)

    def batch(self, batch: Batch) -> None:
        """Note a batch."""
        self.texts.labels(batch.model).inc(batch.rows)
        self.tokens.labels(batch.model).inc(batch.tokens)
        self.batch_rows.observe(batch.rows)
        self.batch_requests.observe(batch.requests)
        self.batch_seconds.observe(batch.seconds)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Note an answered request."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def serving(self, versions: dict[str, str]) -> None:
        """Note which models serve."""
        self.models.clear()
        for name, version in versions.items():
            self.models.labels(name, version).set(1)

    def text(self) -> bytes:
        """All of it."""
        from prometheus_client import generate_latest

        return generate_latest(self.registry)


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
