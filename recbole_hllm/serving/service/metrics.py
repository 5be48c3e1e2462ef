"""What the service counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Numbers of one service, and of its process."""

    CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter(
            "recbole_hllm_requests", "Requests answered.", ("method", "path", "status"), registry=own
        )
        self.seconds = Histogram(
            "recbole_hllm_request_seconds", "From a request's first byte to its answer.", ("path",),
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.batches = Histogram(
            "recbole_hllm_batch_requests", "Requests that were scored together.", buckets=_BATCHES, registry=own
        )
        self.waiting = Gauge("recbole_hllm_waiting_requests", "Requests that wait to be scored.", registry=own)
        self.items = Gauge("recbole_hllm_items", "Items that may be recommended.", registry=own)
        self.changes = Counter("recbole_hllm_item_changes", "Items added or removed.", ("change",), registry=own)
        self.reloads = Counter("recbole_hllm_reloads", "Reloads of the export.", ("result",), registry=own)
        self.export = Info("recbole_hllm_export", "The export that is served.", registry=own)

    def text(self) -> bytes:
        """In Prometheus's format."""
        return generate_latest(self._registry)
