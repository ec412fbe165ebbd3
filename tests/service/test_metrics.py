from __future__ import annotations

import asyncio
import math
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from duotrack import __version__
from duotrack_client.protocol import CloseCode, ErrorCode, Timings
from duotrack_service.endings import BYE, DELETED, EXPIRED, IDLE, internal_error, unusable_box
from duotrack_service.metrics import SECONDS, Metrics

TIMINGS = Timings(queue=0.4, decode=3.0, infer=12.0, total=15.4)


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus would read, by name and labels."""
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def test_sessions_are_counted_by_model_and_by_how_they_end():
    metrics = Metrics()
    metrics.session_created("student-s")
    metrics.session_created("student-s")
    metrics.session_created("student-t")
    metrics.sessions(3)
    metrics.resumed()
    metrics.session_ended(BYE.reason)
    metrics.sessions(2)
    assert value(metrics, "duotrack_sessions_created_total", model="student-s") == 2
    assert value(metrics, "duotrack_sessions_created_total", model="student-t") == 1
    assert value(metrics, "duotrack_sessions_ended_total", reason="bye") == 1
    assert value(metrics, "duotrack_sessions_resumed_total") == 1
    assert value(metrics, "duotrack_sessions") == 2


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (BYE, "bye"),
        (DELETED, "deleted"),
        (IDLE, "idle"),
        (EXPIRED, "expired"),
        (internal_error(), "internal"),
        (unusable_box("the box 1,2,3,4 is outside of the frame"), "other"),
    ],
)
def test_the_reason_of_an_ending_is_one_word(ending, reason):
    metrics = Metrics()
    metrics.session_ended(ending.reason)
    assert value(metrics, "duotrack_sessions_ended_total", reason=reason) == 1


@given(st.lists(st.text(max_size=20), max_size=20))
def test_no_text_of_a_client_becomes_a_label(reasons):
    metrics = Metrics()
    metrics.session_ended(BYE.reason)
    metrics.session_ended("something else")
    before = samples(metrics).keys()
    for reason in reasons:
        metrics.session_ended(reason)
    assert samples(metrics).keys() == before


def test_streams_are_counted_by_close_code():
    metrics = Metrics()
    metrics.stream_opened()
    metrics.stream_closed(CloseCode.NORMAL)
    metrics.stream_closed(None)
    assert value(metrics, "duotrack_streams_opened_total") == 1
    assert value(metrics, "duotrack_streams_closed_total", code="1000") == 1
    assert value(metrics, "duotrack_streams_closed_total", code="none") == 1


def test_frames_are_counted_with_their_bytes_and_why_they_were_not_tracked():
    metrics = Metrics()
    metrics.frame_received(1000)
    metrics.frame_received(500)
    metrics.frames_dropped(3, "superseded")
    metrics.frames_dropped(1, "deadline")
    metrics.frame_refused(ErrorCode.CORRUPT_IMAGE)
    metrics.refused("full")
    assert value(metrics, "duotrack_frames_received_total") == 2
    assert value(metrics, "duotrack_received_bytes_total") == 1500
    assert value(metrics, "duotrack_frames_dropped_total", reason="superseded") == 3
    assert value(metrics, "duotrack_frames_dropped_total", reason="deadline") == 1
    assert value(metrics, "duotrack_frames_refused_total", code="corrupt_image") == 1
    assert value(metrics, "duotrack_refused_total", reason="full") == 1


def test_every_stage_has_a_histogram_in_seconds():
    metrics = Metrics()
    metrics.frame_answered("student-s", TIMINGS)
    metrics.frame_answered("student-s", TIMINGS)
    for stage, seconds in (("queue", 0.0004), ("decode", 0.003), ("infer", 0.012), ("total", 0.0154)):
        labels = {"model": "student-s", "stage": stage}
        assert value(metrics, "duotrack_frame_seconds_sum", **labels) == pytest.approx(2 * seconds)
        assert value(metrics, "duotrack_frame_seconds_count", **labels) == 2
        for bound in SECONDS:
            within = value(metrics, "duotrack_frame_seconds_bucket", **labels, le=str(bound))
            assert within == (2 if seconds <= bound else 0)


def test_a_loaded_model_is_shown_before_its_first_frame():
    metrics = Metrics()
    metrics.provider("student-s", "openvino", "fp32")
    assert value(metrics, "duotrack_model_info", model="student-s", provider="openvino", precision="fp32") == 1
    assert value(metrics, "duotrack_frame_seconds_count", model="student-s", stage="total") == 0


def test_batches_have_a_size_and_a_time():
    metrics = Metrics()
    metrics.batch("student-s", 4, 20.0)
    metrics.batch("student-s", 1, 6.0)
    assert value(metrics, "duotrack_batch_size_sum", model="student-s") == 5
    assert value(metrics, "duotrack_batch_size_bucket", model="student-s", le="1.0") == 1
    assert value(metrics, "duotrack_batch_size_bucket", model="student-s", le="4.0") == 2
    assert value(metrics, "duotrack_batch_seconds_sum", model="student-s") == pytest.approx(0.026)


def test_the_store_is_healthy_until_it_fails_and_each_failure_counts_once():
    metrics = Metrics()
    assert value(metrics, "duotrack_store_healthy") == 1
    for healthy in (True, False, False, True, False):
        metrics.store_health(healthy)
    assert value(metrics, "duotrack_store_healthy") == 0
    assert value(metrics, "duotrack_store_failures_total") == 2
    metrics.store_saved(30.0)
    assert value(metrics, "duotrack_store_save_seconds_sum") == pytest.approx(0.03)


def test_the_process_is_described():
    metrics = Metrics()
    assert value(metrics, "duotrack_build_info", version=__version__) == 1
    assert value(metrics, "duotrack_threads") == threading.active_count()
    assert value(metrics, "duotrack_tasks") == 0
    if Path("/proc/self").is_dir():
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert math.isclose(value(metrics, "process_resident_memory_bytes"), resident, rel_tol=0.2)


async def test_the_tasks_of_the_loop_that_asks_are_counted():
    metrics, forever = Metrics(), asyncio.Event()
    waiting = [asyncio.create_task(forever.wait()) for _ in range(3)]
    count = value(metrics, "duotrack_tasks")
    forever.set()
    await asyncio.gather(*waiting)
    assert count == len(waiting) + 1


def test_two_services_do_not_mix():
    one, other = Metrics(), Metrics()
    one.sessions(3)
    assert value(other, "duotrack_sessions") == 0


def test_names_follow_the_conventions_of_prometheus():
    metrics = Metrics()
    metrics.provider("student-s", "openvino", "fp32")
    families = text_string_to_metric_families(metrics.render()[0].decode())
    ours = [family for family in families if family.name.startswith("duotrack_")]
    assert len(ours) > 15
    for family in ours:
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_size"))
        assert not family.name.endswith(("_ms", "_milliseconds"))
