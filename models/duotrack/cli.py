"""The command ``duotrack``: track, synth, doctor, train, export.

This module sits on top of the distribution: it alone of ``duotrack`` uses the client package, for its frame sources and
result files, so that both commands read and write the same forms.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import cv2
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from duotrack import Box, FramePair, Tracker, TrackResult, __version__
from duotrack.data.synthetic import Scene, SceneConfig, write_scene
from duotrack.engine import DEFAULT_MODEL, Engine, EngineReport, available_models
from duotrack.errors import BoxError, ConfigError, DuoTrackError
from duotrack_client import protocol
from duotrack_client.errors import DuoTrackClientError
from duotrack_client.pairs import Pair
from duotrack_client.sinks import Sink, open_sinks
from duotrack_client.sources import PairSource, open_pairs

TRAIN_EXTRA = "this command needs torch: pip install 'duotrack[train]'"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True)

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
    with reported_errors():
        source = open_pairs(
            rgb,
            thermal,
            lambda text: console.print(f"duotrack: {text}", markup=False, highlight=False, soft_wrap=True),
        )
        tracker = Tracker(Engine.open(model, provider=provider, threads=threads))
        with open_sinks(output, csv, video, source.fps) as sinks:
            _track(tracker, box, source, sinks, console)


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


ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")]
RunFolderOption = Annotated[Path, typer.Option(help="Folder of the run; an unfinished run in it is resumed.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key, as optimizer.new_lr=3e-4. May be repeated.")
]


@app.command()
def train(config: ConfigArgument, output: RunFolderOption, overrides: SetOption = None) -> None:
    """Train a teacher or a student. Under torchrun, on as many processes as it starts.

    Writes checkpoints as it goes, and MODEL.safetensors at the end.
    """
    _run_training(config, output, overrides or [])


@app.command()
def distill(
    config: ConfigArgument,
    output: RunFolderOption,
    teacher: Annotated[Path | None, typer.Option(help="The teacher's weights, in place of the config's.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Compute the teacher's outputs once, into this folder: for small machines.")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Train a student that learns from a teacher. As `train`, with a config that has a distillation part."""
    given = {"distillation.teacher": teacher, "distillation.cache": cache}
    changes = [f"{key}={json.dumps(str(path))}" for key, path in given.items() if path is not None]
    _run_training(config, output, [*(overrides or []), *changes], distilling=True)


def _run_training(name: str, output: Path, overrides: list[str], *, distilling: bool = False) -> None:
    try:
        from duotrack.training.config import load_config
        from duotrack.training.run import run_training
    except ModuleNotFoundError as error:
        raise _failure(TRAIN_EXTRA) from error
    console = Console(stderr=True)
    with reported_errors():
        config = load_config(name, overrides)
        if distilling and config.distillation is None:
            raise ConfigError(f"{name} has no distillation part: use `duotrack train`, or give --teacher")
        outcome = run_training(config, output, console)
        if outcome.weights is None:
            console.print(f"stopped after step {outcome.step}; the same command goes on from there", highlight=False)
            raise typer.Exit(130)
        if int(os.environ.get("RANK", "0")) == 0:
            console.print(f"wrote {outcome.weights}", highlight=False, soft_wrap=True)


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="Trained weights (.safetensors), a model folder, or a shipped name.")],
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    name: Annotated[str | None, typer.Option(help="The model's name; by default the source's.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8 (docs/export.md).")] = "fp16",
    target: Annotated[str, typer.Option(help="onnx, or tensorrt (plans for this machine's GPU).")] = "onnx",
    calibrate: Annotated[Path | None, typer.Option(help="Folder of training images, for int8.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Crops of them to measure ranges on.")] = 256,
) -> None:
    """Export a network as a model folder, and prove it on the provider that would run here."""
    try:
        from duotrack.export.source import PRECISIONS, TARGETS, ExportOptions, export_from
    except ModuleNotFoundError as error:
        raise _failure(TRAIN_EXTRA) from error
    if precision not in PRECISIONS:
        raise typer.BadParameter(
            f"expected one of {', '.join(PRECISIONS)}, got {precision!r}", param_hint="--precision"
        )
    if target not in TARGETS:
        raise typer.BadParameter(f"expected one of {', '.join(TARGETS)}, got {target!r}", param_hint="--target")
    console = Console(stderr=True)
    with reported_errors():
        options = ExportOptions(name, PRECISIONS[precision], TARGETS[target], calibrate, samples)
        export_from(source, output, options)
        line = f"wrote {output}; {Engine.open(output)!r} agrees with the recorded run"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A public checkpoint (.pth.tar, .pth, .pt, .bin, .safetensors).")],
    architecture: Annotated[str, typer.Option(help="mplt (gives a teacher) or ostrack (gives a student).")],
    output: Annotated[Path, typer.Option(help="Weights file to write (safetensors).")],
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads; by default width / 64.")] = None,
    name: Annotated[str | None, typer.Option(help="Name to keep with the weights; by default the output's.")] = None,
    check: Annotated[Path | None, typer.Option(help="Recorded inputs and outputs (.npz) to compare with.")] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest difference that --check accepts.")] = 1e-4,
) -> None:
    """Turn a public MPLT or OSTrack checkpoint into a DuoTrack network, without running anything in the file.

    With --check, prints the largest difference of each output as JSON, and writes nothing where one is too large.
    """
    try:
        from duotrack.nets.models import save_model
        from duotrack.nets.parity import differences_from
        from duotrack.nets.public_checkpoint import import_checkpoint
    except ModuleNotFoundError as error:
        raise _failure(TRAIN_EXTRA) from error
    with reported_errors():
        model = import_checkpoint(file, architecture, heads=heads)
        if check is not None:
            differences = differences_from(model, check)
            typer.echo(json.dumps(differences))
            if max(differences.values()) > tolerance:
                raise _failure(f"{file} differs from {check} by more than {tolerance:g}; nothing was written")
        save_model(model, output, name or output.stem)
        Console(stderr=True).print(f"wrote {output}", highlight=False, markup=False, soft_wrap=True)


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


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn expected errors into one line on stderr and a non-zero exit."""
    try:
        yield
    except (DuoTrackError, DuoTrackClientError, ValueError) as error:
        raise _failure(str(error)) from error
    except KeyboardInterrupt:
        sys.stderr.write("duotrack: interrupted; what was written so far is whole\n")
        raise typer.Exit(130) from None


def progress_bar(console: Console) -> Progress:
    state = TextColumn("{task.fields[state]}")
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        state,
        TimeRemainingColumn(),
        console=console,
    )


def _track(tracker: Tracker, box: Box, source: PairSource, sinks: Iterable[Sink], console: Console) -> None:
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
            for sink in sinks:
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


def _failure(message: str) -> typer.Exit:
    sys.stderr.write(f"duotrack: {message}\n")
    return typer.Exit(1)
