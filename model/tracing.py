"""Traces by OpenTelemetry: off unless the setting ``tracing`` asks, then sent where the ``OTEL_*`` variables say.

While they are off nothing of OpenTelemetry is loaded for them, and a function here costs one comparison. W3C's trace
context joins what a click passes: FastAPI reads it from a request, and records of Kafka carry it on in their headers.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_LAST_S = 2.0  # for the spans that are left at the end
Attributes = Mapping[str, str | int]
_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


@contextmanager
def tracing(wanted: bool, service: str) -> Iterator[None]:
    """Send this process's spans for as long as this lasts; at its end, those that are left.

    Args:
        service: The service's name, unless OTEL_SERVICE_NAME says another.
    """
    global _provider, _tracer
    if not wanted:
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("dat")
    try:
        yield
    finally:
        ending, _provider, _tracer = _provider, None, None
        last = threading.Thread(target=ending.shutdown, daemon=True)  # a collector that is away must hold up no end
        last.start()
        last.join(_LAST_S)


def provider() -> "TracerProvider | None":
    """Whose spans are sent; None: traces are off."""
    return _provider


def note(attributes: Attributes, name: str | None = None) -> None:
    """Say more of the span at hand."""
    if _tracer is None:
        return
    from opentelemetry.trace import get_current_span

    span = get_current_span()
    span.set_attributes(attributes)
    if name is not None:
        span.update_name(name)


def past(steps: Mapping[str, float], attributes: Attributes) -> None:
    """Spans of what has just been done for the span at hand: each step's seconds, in order, up to now."""
    if _tracer is None:
        return
    at = time.time_ns() - sum(round(seconds * 1e9) for seconds in steps.values())
    for name, seconds in steps.items():
        span = _tracer.start_span(name, start_time=at, attributes=attributes)
        at += round(seconds * 1e9)
        span.end(at)


def headers() -> list[tuple[str, bytes]]:
    """What a record of Kafka says of the span that it comes from."""
    if _tracer is None:
        return []
    from opentelemetry.propagate import inject

    carrier: dict[str, str] = {}
    inject(carrier)
    return [(name, value.encode()) for name, value in carrier.items()]


def linked(name: str, records: Iterable[Any], attributes: Attributes) -> AbstractContextManager[Any]:
    """A span of the work on some records of Kafka, with links to the spans that they come from."""
    if _tracer is None:
        return nullcontext()
    return _tracer.start_as_current_span(name, attributes=attributes, links=_links(records))


def _links(records: Iterable[Any]) -> list[Any]:
    from opentelemetry.propagate import extract, get_global_textmap
    from opentelemetry.trace import Link, get_current_span

    fields = get_global_textmap().fields
    carriers = {
        tuple((field, value.decode(errors="replace")) for field, value in record.headers if field in fields)
        for record in records
    }
    contexts = (get_current_span(extract(dict(carrier))).get_span_context() for carrier in sorted(carriers) if carrier)
    return [Link(context) for context in contexts if context.is_valid]
