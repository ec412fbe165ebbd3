from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from duotrack_service import tracing
from duotrack_service.logs import MASK
from duotrack_service.tracing import TracingError, span, wanted_exporter

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.shutdown()


def test_spans_nest_and_carry_what_is_known_before_and_after(spans):
    with span("stream", session="a1"), span("tracker.step", model="student-s", waited=False) as step:
        step.set(batch=3, infer_ms=4.5)
    inner, outer = spans.get_finished_spans()
    assert (outer.name, dict(outer.attributes)) == ("stream", {"session": "a1"})
    assert (inner.name, inner.parent.span_id) == ("tracker.step", outer.context.span_id)
    assert dict(inner.attributes) == {"model": "student-s", "waited": False, "batch": 3, "infer_ms": 4.5}
    assert outer.start_time <= inner.start_time <= inner.end_time <= outer.end_time


def test_tasks_inherit_their_span(spans):
    async def step() -> None:
        with span("tracker.step"):
            await asyncio.sleep(0)

    async def stream() -> None:
        with span("stream"):
            steps = [asyncio.create_task(step()) for _ in range(2)]
        await asyncio.gather(*steps)

    asyncio.run(stream())
    finished = spans.get_finished_spans()
    (outer,) = (one for one in finished if one.name == "stream")
    assert [one.parent.span_id for one in finished if one.name == "tracker.step"] == [outer.context.span_id] * 2


def test_an_error_passes_through_and_is_noted(spans):
    with pytest.raises(ZeroDivisionError), span("tracker.step"):
        raise ZeroDivisionError("a bug")
    (one,) = spans.get_finished_spans()
    assert not one.status.is_ok
    assert one.events[0].attributes["exception.type"] == "ZeroDivisionError"


def test_attributes_are_guarded_as_the_log_is(spans):
    with span("session.create", ticket="abc", image=b"12345", box=(1, 2), header="Bearer abcdefghijk"):
        pass
    (one,) = spans.get_finished_spans()
    assert dict(one.attributes) == {
        "ticket": MASK,
        "image": "<5 bytes>",
        "box": "[1, 2]",
        "header": f"Bearer {MASK}",
    }


def test_the_sampler_decides():
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    with span("stream") as one:
        one.set(frames=3)
    tracing.shutdown()
    assert exporter.get_finished_spans() == ()


def test_the_end_sends_what_still_waits():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
    tracing.use(provider)
    with span("stream"):
        pass
    assert exporter.get_finished_spans() == ()
    tracing.shutdown()
    assert [one.name for one in exporter.get_finished_spans()] == ["stream"]


def test_without_a_provider_a_span_is_nothing(spans):
    tracing.use(None)
    with span("stream", session="a1") as one:
        one.set(frames=3)
    with pytest.raises(ZeroDivisionError), span("stream"):
        raise ZeroDivisionError
    assert spans.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("environ", "exporter"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "drone"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, None),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "otlp"}, None),
    ],
)
def test_the_environment_says_where_spans_go(environ, exporter):
    assert wanted_exporter(environ) == exporter


def test_an_exporter_that_is_not_known_is_named():
    with pytest.raises(TracingError, match=r"must be one of otlp, console, none, got 'zipkin'"):
        wanted_exporter({"OTEL_TRACES_EXPORTER": "zipkin"})


def test_nothing_is_configured_where_nothing_is_asked_for(monkeypatch):
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert tracing.configure() is False


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    paths = {"PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(command, env=paths | environ, capture_output=True, text=True, timeout=60, check=False)


TRACE_ONE = """
from duotrack_service import tracing
print(tracing.configure())
with tracing.span("step", frames=3): pass
tracing.shutdown()
"""


def test_spans_reach_the_exporter_of_the_environment_before_the_process_ends():
    done = run(TRACE_ONE, OTEL_TRACES_EXPORTER="console", OTEL_RESOURCE_ATTRIBUTES="service.name=drone")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True")
    assert '"name": "step"' in done.stdout
    assert '"frames": 3' in done.stdout
    assert '"service.name": "drone"' in done.stdout


def test_off_opentelemetry_is_not_even_imported():
    done = run(TRACE_ONE + "\nimport sys; print(sorted(name for name in sys.modules if 'opentelemetry' in name))")
    assert done.stdout.split() == ["False", "[]"], done.stderr


def test_without_the_package_the_error_says_what_to_install():
    blocked = "import sys; sys.modules['opentelemetry'] = None\n"
    done = run(blocked + TRACE_ONE, OTEL_TRACES_EXPORTER="console")
    assert done.returncode == 1
    assert "pip install 'duotrack[otel]'" in done.stderr
