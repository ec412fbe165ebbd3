"""Optional spans for OpenTelemetry: ``pip install 'duotrack[otel]'`` and set ``OTEL_EXPORTER_OTLP_ENDPOINT``.

The variables are OpenTelemetry's own: ``OTEL_TRACES_EXPORTER`` (``otlp``, ``console`` or ``none``),
``OTEL_EXPORTER_OTLP_ENDPOINT`` and ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`` (over HTTP), ``OTEL_SERVICE_NAME``,
``OTEL_TRACES_SAMPLER``, ``OTEL_SDK_DISABLED``. Where none of them asks for traces, OpenTelemetry is not even imported,
and a span costs a function call.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol

from duotrack import __version__
from duotrack_service.logs import presentable

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

SERVICE_NAME: Final = "duotrack"
EXPORTERS: Final = ("otlp", "console", "none")


class TracingError(Exception):
    """Traces are asked for and cannot be made."""


class Span(Protocol):
    """A stretch of work."""

    def set(self, **attributes: object) -> None:
        """Note what has come out of it. Secrets and bytes are masked, as in the log."""


class _NoSpan:
    """What a span is while nobody looks. It has no state, so that all places can share one."""

    __slots__ = ()

    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def set(self, **attributes: object) -> None:
        """Nothing."""


class _OtelSpan:
    """A span of OpenTelemetry, current while it is open: spans that open within it are its children."""

    def __init__(self, tracer: Tracer, name: str, attributes: Mapping[str, object]) -> None:
        self._opening: AbstractContextManager[OtelSpan] = tracer.start_as_current_span(name)
        self._attributes = attributes

    def __enter__(self) -> _OtelSpan:
        self._span = self._opening.__enter__()
        self.set(**self._attributes)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._opening.__exit__(kind, error, traceback)

    def set(self, **attributes: object) -> None:
        if self._span.is_recording():
            self._span.set_attributes({name: _attribute(name, value) for name, value in attributes.items()})


_NO_SPAN: Final = _NoSpan()
_provider: TracerProvider | None = None
_tracer: Tracer | None = None


def span(name: str, **attributes: object) -> AbstractContextManager[Span]:
    """Trace the work of a ``with`` block under ``name``, such as ``tracker.step``.

    Whether a span is kept is the SDK's choice (``OTEL_TRACES_SAMPLER``). Asyncio tasks that are made in the block
    inherit it as their parent; threads do not.
    """
    return _NO_SPAN if _tracer is None else _OtelSpan(_tracer, name, attributes)


def configure() -> bool:
    """Trace if the environment asks for it; whether it does.

    Raises:
        TracingError: it asks for an exporter that is not known, or OpenTelemetry is not installed.
    """
    exporter = wanted_exporter(os.environ)
    if exporter is None:
        return False
    try:
        use(_provider_for(exporter))
    except ImportError as error:
        raise TracingError(
            f"the environment asks for traces (exporter {exporter!r}), and OpenTelemetry is not installed ({error}): "
            "pip install 'duotrack[otel]', or set OTEL_SDK_DISABLED=true"
        ) from error
    return True


def wanted_exporter(environ: Mapping[str, str]) -> str | None:
    """Where the environment wants spans sent, ``otlp`` or ``console``; None for nowhere.

    Raises:
        TracingError: an exporter is named that is not known.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    endpoint = any(environ.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("ENDPOINT", "TRACES_ENDPOINT"))
    exporter = environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if endpoint else "none")
    if exporter not in EXPORTERS:
        raise TracingError(f"OTEL_TRACES_EXPORTER must be one of {', '.join(EXPORTERS)}, got {exporter!r}")
    return None if exporter == "none" else exporter


def use(provider: TracerProvider | None) -> None:
    """Send spans to ``provider`` from now on, or nowhere. OpenTelemetry's global provider is left alone."""
    global _provider, _tracer
    _provider = provider
    _tracer = None if provider is None else provider.get_tracer(SERVICE_NAME, __version__)


def shutdown() -> None:
    """Send the spans that still wait, and trace no more. Takes as long as the exporter takes."""
    provider = _provider
    use(None)
    if provider is not None:
        provider.shutdown()


def _provider_for(exporter: str) -> TracerProvider:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource.create({"service.name": SERVICE_NAME, "service.version": __version__})
    asked = OTELResourceDetector().detect()  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, which win
    provider = TracerProvider(resource=ours.merge(asked))
    provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
    return provider


def _exporter(name: str) -> SpanExporter:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _attribute(name: str, value: object) -> Any:
    shown = presentable(name, value)
    return shown if isinstance(shown, bool | int | float | str) else str(shown)
