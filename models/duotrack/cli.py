"""The command ``duotrack``: track, synth and doctor here; others in ``evaluation.commands`` and ``training.commands``.

This module sits on top of the distribution: it alone of ``duotrack`` uses the client package, for its frame sources and
result files, so that both commands read and write the same forms.
"""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Annotated, Literal

import cv2
import typer
from rich.console import Console

from duotrack import Box, FramePair, Tracker, TrackResult, __version__
from duotrack.data.synthetic import Scene, SceneConfig, write_scene
from duotrack.engine import DEFAULT_MODEL, Engine, EngineReport, available_models
from duotrack.errors import BoxError
from duotrack.evaluation.commands import app as evaluation
from duotrack.terminal import progress_bar, reported_errors
from duotrack.training.commands import app as training
from duotrack_client import protocol
from duotrack_client.errors import DuoTrackClientError
from duotrack_client.pairs import Pair
from duotrack_client.sinks import Sink, open_sinks
from duotrack_client.sources import PairSource, open_pairs

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True)
app.add_typer(evaluation)
app.add_typer(training)

ModelOption = Annotated[str, typer.Option(help="A shipped model's name, or the path of an exported one.")]
ProviderOption = Annotated[str | None, typer.Option(help="Execution provider; by default the fastest there is.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Inference threads; by default one for each core.")]


@app.callback()
def commands() -> None:
    """Follow one object through paired colour and thermal video."""


@app.command()
def track(
    init_box: Annotated[str, typer.Option(help="The target in the first frame, as x,y,w,h in pixels.")],
    output: Annotated[Path, typer.Option(help="Where to write a line x,y,w,h for each frame.")],
    rgb: Annotated[Path | None, typer.Option(help="Colour frames: a folder of images or a video.")] = None,
    thermal: Annotated[Path | None, typer.Option(help="Thermal frames: a folder of images or a video.")] = None,
    model: ModelOption = DEFAULT_MODEL,
    csv: Annotated[Path | None, typer.Option(help="Write a row with score, state and timings for each frame.")] = None,
    video: Annotated[Path | None, typer.Option(help="Write an annotated MP4 video, side by side.")] = None,
    provider: ProviderOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Track one target through a recording. Either of --rgb and --thermal may be left out."""
    try:
        box = Box.parse(init_box)
    except BoxError as error:
        raise typer.BadParameter(str(error), param_hint="--init-box") from error
    if rgb is None and thermal is None:
        raise typer.BadParameter("expected --rgb, --thermal, or both", param_hint="--rgb")
    console = Console(stderr=True)
    with reported_errors(DuoTrackClientError):
        source = open_pairs(
            rgb,
            thermal,
            lambda text: console.print(f"duotrack: {text}", markup=False, highlight=False, soft_wrap=True),
        )
        with open_sinks(output, csv, video, source.fps, inputs=(rgb, thermal)) as sink:
            tracker = Tracker(Engine.open(model, provider=provider, threads=threads))
            _track(tracker, box, source, sink, console)


@app.command()
def synth(
    output: Annotated[Path, typer.Option(help="Folder to write; it must be new or empty.")],
    frames: Annotated[int, typer.Option(min=1, help="Number of frame pairs.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same scene.")] = 0,
    size: Annotated[str, typer.Option(help="Width and height in pixels, as 640x480.")] = "640x480",
    thermal_bits: Annotated[int, typer.Option(help="8, or 16 for raw counts.")] = 8,
    form: Annotated[str, typer.Option(help="frames (folders of images) or video.")] = "frames",
) -> None:
    """Generate a scene in colour and thermal, with the true box and visibility of its target on every frame."""
    console = Console(stderr=True)
    try:
        width, height = (int(part) for part in size.lower().split("x"))
    except ValueError as error:
        raise typer.BadParameter(f"expected WIDTHxHEIGHT, got {size!r}", param_hint="--size") from error
    forms: dict[str, Literal["frames", "video"]] = {"frames": "frames", "video": "video"}
    if form not in forms:
        raise typer.BadParameter(f"expected frames or video, got {form!r}", param_hint="--form")
    if thermal_bits not in (8, 16):
        raise typer.BadParameter(f"expected 8 or 16, got {thermal_bits}", param_hint="--thermal-bits")
    with reported_errors():
        bits: Literal[8, 16] = 16 if thermal_bits == 16 else 8
        scene = Scene(SceneConfig(width=width, height=height, frames=frames, seed=seed, thermal_bits=bits))
        with progress_bar(console) as progress:
            task = progress.add_task("writing", total=frames, state="")
            write_scene(scene, output, forms[form], lambda done, _: progress.update(task, completed=done))
        first = scene[0].box
        assert first is not None
        console.print(f"{frames} frames of a {scene.plan.kind} in {output}; first box {first.text()}", highlight=False)


@app.command()
def doctor(model: ModelOption = DEFAULT_MODEL, provider: ProviderOption = None, threads: ThreadsOption = None) -> None:
    """Show what would really run here: versions, models, the provider chosen and why others were not."""
    console = Console()
    with reported_errors():
        engine = Engine.open(model, provider=provider, threads=threads)
        lines = {
            "duotrack": f"{__version__}, Python {platform.python_version()}, {platform.machine()}",
            "models": ", ".join(available_models()),
            **describe(engine.report),
            "speed": f"{_median_ms(engine):.1f} ms per pair (median of 20, without decoding)",
        }
        for name, text in lines.items():
            console.print(f"{name:12} {text}", highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point of ``duotrack``."""
    # What is wrong with a file is in our own messages.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    app()


def describe(report: EngineReport) -> dict[str, str]:
    """An engine report as named lines of text."""
    assignment = ", ".join(f"{name} ({count} parts)" for name, count in report.assignment.items())
    lines = {
        "model": report.model,
        "provider": f"{report.provider}: {report.runtime}, {report.precision}, {report.threads} threads",
        "runs on": assignment,
    }
    return lines | {f"not {name}": reason for name, reason in report.skipped.items()}


def _track(tracker: Tracker, box: Box, source: PairSource, sink: Sink, console: Console) -> None:
    tracked = lost = 0
    spent = 0.0
    with progress_bar(console) as progress:
        task = progress.add_task("tracking", total=source.count, state="")
        asked = time.perf_counter()
        for pair in source:
            read = time.perf_counter()
            frames = FramePair(pair.rgb, pair.thermal)
            result = tracker.init(frames, box) if tracked == 0 else tracker.update(frames)
            done = time.perf_counter()
            timings = protocol.Timings(0.0, *(round(ms * 1e3, 3) for ms in (read - asked, done - read, done - asked)))
            sink.write(pair, _as_message(tracked, result, pair, timings))
            tracked += 1
            lost += result.state == "lost"
            spent += done - asked
            progress.update(task, advance=1, state=result.state)
            asked = time.perf_counter()
        progress.update(task, total=tracked)
    pace = f", {tracked / spent:.0f} frames a second with reading" if tracked else ""
    console.print(f"{tracked} frames tracked, target lost in {lost}{pace}", highlight=False)


def _as_message(number: int, result: TrackResult, pair: Pair, timings: protocol.Timings) -> protocol.Result:
    health = [
        protocol.ModalityHealth.MISSING if frame is None else protocol.ModalityHealth.OK
        for frame in (pair.rgb, pair.thermal)
    ]
    return protocol.Result(
        seq=number,
        box=protocol.Box.of(result.box),
        score=result.score,
        state=protocol.TargetState(result.state),
        modalities=protocol.Modalities(*health),
        dropped_since_last=0,
        credit=0,
        timings=timings,
    )


def _median_ms(engine: Engine) -> float:
    scene = Scene(SceneConfig(frames=21, exits=False, occlusion=False, crossover=False))
    tracker = Tracker(engine)
    first, *others = [frame.pair for frame in scene]
    box = scene[0].box
    assert box is not None
    tracker.init(first, box)
    times = []
    for pair in others:
        started = time.perf_counter()
        tracker.update(pair)
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2] * 1e3
