"""Metrics of the HTTP layer, the same for every service."""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# Without this every counter has a second series with its creation time, which nothing uses.
disable_created_metrics()  # type: ignore[no-untyped-call]

REQUESTS = Counter("http_requests_total", "Requests answered.", ["service", "method", "path", "code"])
DURATION = Histogram(
    "http_request_duration_seconds",
    "Time from the first byte of a request to the last byte of its answer.",
    ["service", "method", "path"],
    # 0.5 s is the limit of the latency objective, so it has to be a bucket.
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
IN_FLIGHT = Gauge("http_requests_in_flight", "Requests being served.", ["service"])
DEPENDENCY_UP = Gauge("dependency_up", "1 if the last check of a dependency succeeded.", ["service", "dependency"])

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@cache
def _children(service: str, method: str, path: str, code: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(service, method, path, str(code)), DURATION.labels(service, method, path)


def observe(service: str, method: str, path: str, code: int, seconds: float) -> None:
    """Count one answered request.

    Args:
        path: the route's template, never the path itself: that would make a time series of every item.
        seconds: how long it took.
    """
    counter, histogram = _children(service, method if method in METHODS else "OTHER", path, code)
    counter.inc()
    histogram.observe(seconds)
