"""What this process counts of itself, in one registry of its own; `gridsite/scrape.py` gives it out.

Labels come from short fixed lists. No name of a person or dataset and no private value is ever one, so that the
figures may go to a monitoring system that its operator trusts less than the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, wraps
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from gridclient.wire.errors import BY_CODE

REGISTRY = CollectorRegistry()
disable_created_metrics()  # one more series for each, which nobody reads
OK, GONE, OTHER = "ok", "gone", "other"
LOOK_EVERY = 0.5
_SHORT = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 20)
_LONG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def _counter(name: str, help: str, *labels: str) -> Counter:
    return Counter(f"gridsite_{name}", help, labels, registry=REGISTRY)


def _gauge(name: str, help: str, *labels: str) -> Gauge:
    return Gauge(f"gridsite_{name}", help, labels, registry=REGISTRY)


def _histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"gridsite_{name}", help, labels, buckets=buckets, registry=REGISTRY)


# --- the data websocket -----------------------------------------------------------------------------------------
SESSIONS = _gauge("sessions", "Sessions open.")
ASKS = _counter("asks", "Questions answered, by kind and by 'ok' or the code of the refusal.", "kind", "outcome")
ASK_SECONDS = _histogram("ask_seconds", "From a question to its answer, by kind.", _LONG, "kind")
ERRORS = _counter("errors", "Errors told, by door (wire or rest) and code.", "door", "code")
UPLOADS = _gauge("uploads", "Uploads in flight.")
UPLOAD_BYTES = _gauge("upload_bytes", "Bytes that uploads hold: announced, and not yet used or dropped.")
RELEASES = _counter("releases", "Values released, by route.", "route")

# --- workers ----------------------------------------------------------------------------------------------------
WORKERS = _gauge("workers", "Worker processes alive.")
WORKERS_ENDED = _counter("workers_ended", "Workers that ended: closed, overrun (killed at a limit) or crashed.", "how")
WORKER_BYTES = _gauge("worker_resident_bytes", "Resident memory of the workers; pages that they share count in each.")
LARGEST_WORKER_BYTES = _gauge("largest_worker_resident_bytes", "Resident memory of the largest worker.")

# --- this process and its database ------------------------------------------------------------------------------
DATABASE_QUEUE = _gauge("database_queue", "Calls that wait for the database thread.")
DATABASE_WAIT = _histogram("database_wait_seconds", "How long calls waited for the database thread.", _SHORT)
LOOP_LAG = _histogram("event_loop_lag_seconds", "How much later than asked the event loop woke a task.", _SHORT)
REQUESTS = _gauge("requests", "Requests in the queue, by state. Of the deployment, not of the process.", "state")
AUDIT_EVENTS = _gauge("audit_events", "Events in the audit log. Of the deployment, not of the process.")


def code(text: str) -> str:
    """A code as a label: one of those that we know."""
    return text if text in BY_CODE else OTHER


@dataclass(slots=True, eq=False)
class Traffic(Collector):
    """Messages and bytes in one direction. Plain numbers of the event loop's one thread: counting must cost nothing."""

    direction: str
    frames: int = 0
    nbytes: int = 0

    def collect(self) -> Iterator[CounterMetricFamily]:
        for name, help, value in (
            ("frames", "Messages on the data websocket.", self.frames),
            ("frame_bytes", "Their bytes.", self.nbytes),
        ):
            family = CounterMetricFamily(f"gridsite_{self.direction}_{name}", help)
            family.add_metric([], value)
            yield family


RECEIVED, SENT = Traffic("received"), Traffic("sent")
REGISTRY.register(RECEIVED)
REGISTRY.register(SENT)
# To find the counter of a label takes longer than to count.
released = cache(RELEASES.labels)
_asks, _ask_seconds = cache(ASKS.labels), cache(ASK_SECONDS.labels)
_outcome: ContextVar[str] = ContextVar("outcome", default=GONE)
Answer = Callable[..., Coroutine[Any, Any, None]]


def said(command: Any) -> None:
    """Count what is told on the wire: an error by its code; in a question's own task also how the question ended."""
    error = getattr(command, "code", None)
    if error is not None:
        ERRORS.labels("wire", code(error)).inc()
    _outcome.set(OK if error is None else code(error))


def asked(answer: Answer) -> Answer:
    """Decorates the coroutine that answers one question (its second argument) in a task of its own."""

    @wraps(answer)
    async def measured(self: Any, command: Any, *more: Any) -> None:
        began, kind = perf_counter(), type(command).__name__.lower()
        _outcome.set(GONE)  # until something is told: the task begins with a copy of what its connection said
        try:
            await answer(self, command, *more)
        finally:
            _ask_seconds(kind).observe(perf_counter() - began)
            _asks(kind, _outcome.get()).inc()

    return measured


async def watch_loop() -> None:
    """Measure the event loop's lag until cancelled."""
    while True:
        due = perf_counter() + LOOK_EVERY
        await asyncio.sleep(LOOK_EVERY)
        LOOP_LAG.observe(max(0.0, perf_counter() - due))
