"""``make demo``: a generated scene through a real service and client, watched by a video, a CSV file and a summary.

Starts ``duotrack-serve`` as a process of its own on a free loopback port, streams the scene through the client, and
writes ``scene/``, ``demo.mp4``, ``demo.csv`` and ``boxes.txt`` into the output folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from rich.console import Console
from rich.progress import track as progressing

from duotrack import Box
from duotrack.data.images import read_boxes
from duotrack.data.synthetic import Scene, SceneConfig, write_scene
from duotrack.errors import DuoTrackError
from duotrack_client import Client, DuoTrackClientError, Pair, Result
from duotrack_client.sinks import open_sinks
from duotrack_client.sources import open_pairs

START_TIMEOUT_S = 60.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder to write; the scene in it is replaced.")] = Path("demo-output"),
    frames: Annotated[int, typer.Option(min=2, help="Length of the scene.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scene.")] = 7,
    hard: Annotated[bool, typer.Option("--hard", help="Let the target be hidden and leave the frame.")] = False,
) -> None:
    """Follow a generated target through the real service."""
    console = Console()
    try:
        _run(output, SceneConfig(frames=frames, seed=seed, exits=hard, occlusion=hard), console)
    except (DuoTrackError, DuoTrackClientError, OSError) as error:
        sys.stderr.write(f"demo: {error}\n")
        raise typer.Exit(1) from error


def _run(output: Path, config: SceneConfig, console: Console) -> None:
    scene = Scene(config)
    folder = output / "scene"
    shutil.rmtree(folder, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    console.print(f"1. drawing {config.frames} frame pairs of a {scene.plan.kind} (seed {config.seed}) into {folder}")
    write_scene(scene, folder)
    visibility = [float(line) for line in (folder / "visibility.txt").read_text(encoding="utf-8").splitlines()]
    truth = list(zip(read_boxes(folder / "visible.txt"), visibility, strict=True))
    first = truth[0][0]
    assert first is not None
    with running_service(output / "service.log") as (url, ready):
        engine = f"{ready['model']} on {ready['provider']}, {ready['precision']}"
        console.print(f"2. serving {engine} at {url}")
        results, elapsed = _stream(url, folder, first, output, console)
    console.print(f"3. wrote {output}/demo.mp4, demo.csv and boxes.txt")
    summarise(results, truth, elapsed, console)


@contextmanager
def running_service(log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A service in a process of its own: its URL, and what ``/health/ready`` says. Its log goes to ``log``.

    Raises:
        DuoTrackError: it did not become ready.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "duotrack_service",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
        "--store",
        "memory:",
    ]
    # One camera and nobody else: all threads for the one frame that is tracked at a time.
    environment = {"DUOTRACK_LANES": "1", **os.environ}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        try:
            yield url, _wait_until_ready(url, process, log)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx2.get(f"{url}/health/ready", timeout=1.0, trust_env=False)
        except httpx2.HTTPError:
            time.sleep(0.1)
            continue
        if answer.status_code == 200:
            return dict(answer.json())
        time.sleep(0.1)
    ending = " ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
    raise DuoTrackError(f"the service did not start ({log}): {ending}")


def _stream(url: str, folder: Path, box: Box, output: Path, console: Console) -> tuple[list[Result], float]:
    """All results, and the seconds from the first frame sent to the last result, drawing the video not counted."""
    source = open_pairs(folder / "visible", folder / "infrared", console.print)
    pairs = list(source)  # decoded before the clock starts: the demo times the service, not the disk
    with Client(url) as client, client.session(box) as session:
        started = time.perf_counter()
        results = list(progressing(session.stream(pairs), "   tracking", total=len(pairs), console=console))
        elapsed = time.perf_counter() - started
    _write(pairs, results, output)
    return results, elapsed


def _write(pairs: list[Pair], results: list[Result], output: Path) -> None:
    files = output / "boxes.txt", output / "demo.csv", output / "demo.mp4"
    with open_sinks(*files, fps=None) as sink:
        for pair, result in zip(pairs, results, strict=True):
            sink.write(pair, result)


def summarise(results: list[Result], truth: list[tuple[Box | None, float]], elapsed: float, console: Console) -> None:
    """Print accuracy against the scene's truth, pace, and where the time went."""
    overlaps = [
        box.iou(Box(*result.box.xywh))
        for result, (box, visibility) in zip(results[1:], truth[1:], strict=True)
        if box is not None and visibility > 0.3
    ]
    hidden = [
        result.state
        for result, (box, visibility) in zip(results[1:], truth[1:], strict=True)
        if box is None or visibility == 0
    ]
    console.print(f"mean IoU      {statistics.mean(overlaps):.3f} over {len(overlaps)} frames with the target in sight")
    if hidden:
        lost = sum(state == "lost" for state in hidden)
        console.print(f"out of sight  {lost} of {len(hidden)} frames reported as lost")
    console.print(f"pace          {len(results) / elapsed:.1f} frames a second, encoding and both ends included")
    for stage in ("queue", "decode", "infer", "total"):
        times = [getattr(result.timings, stage) for result in results]
        console.print(f"{stage:13} {statistics.median(times):.1f} ms (median, in the service)")


if __name__ == "__main__":
    app()
