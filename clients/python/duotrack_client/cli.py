"""The command ``duotrack-client``."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import cv2
import httpx2
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from duotrack_client.client import Client
from duotrack_client.errors import BoxError, DuoTrackClientError, ServerError
from duotrack_client.pairs import Pair
from duotrack_client.protocol import Box, TargetState
from duotrack_client.sinks import Sink, open_sinks
from duotrack_client.sources import PairSource, open_pairs

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def commands() -> None:
    """Send paired colour and thermal video to a DuoTrack service."""


@app.command()
def stream(
    init_box: Annotated[str, typer.Option(help="The target in the first frame, as x,y,w,h in pixels.")],
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
    rgb: Annotated[Path | None, typer.Option(help="Colour frames: a folder of images or a video.")] = None,
    thermal: Annotated[Path | None, typer.Option(help="Thermal frames: a folder of images or a video.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to track with.")] = None,
    reconnect: Annotated[float, typer.Option(min=0, help="Seconds to look for a service that went away.")] = 60.0,
    output: Annotated[Path | None, typer.Option(help="Write a line x,y,w,h for each frame.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a row with score, state and timings for each frame.")] = None,
    video: Annotated[Path | None, typer.Option(help="Write an annotated MP4 video, side by side.")] = None,
) -> None:
    """Track one target through a recording. Either of --rgb and --thermal may be left out.

    Where the service asks for a key, it is taken from the variable DUOTRACK_API_KEY.
    """
    try:
        box = Box.parse(init_box)
    except BoxError as error:
        raise typer.BadParameter(str(error), param_hint="--init-box") from error
    if rgb is None and thermal is None:
        raise typer.BadParameter("expected --rgb, --thermal, or both", param_hint="--rgb")
    console = Console(stderr=True)
    try:
        source = open_pairs(
            rgb,
            thermal,
            lambda text: console.print(f"duotrack-client: {text}", markup=False, highlight=False, soft_wrap=True),
        )
        files = open_sinks(output, csv, video, source.fps, inputs=(rgb, thermal))
        with files as sink, Client(url, reconnect_s=reconnect) as client:
            _track(client, box, model, source, sink, console)
    except DuoTrackClientError as error:
        unauthorized = isinstance(error, ServerError) and error.problem.status == httpx2.codes.UNAUTHORIZED
        hint = "; put the key into the variable DUOTRACK_API_KEY" if unauthorized else ""
        sys.stderr.write(f"duotrack-client: {error}{hint}\n")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        sys.stderr.write("duotrack-client: interrupted; what was written so far is whole\n")
        raise typer.Exit(130) from None


def main() -> None:
    """Entry point of ``duotrack-client``."""
    # What is wrong with a file is in our own messages.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    app()


def _track(client: Client, box: Box, model: str | None, source: PairSource, sink: Sink, console: Console) -> None:
    in_flight: deque[Pair] = deque()  # answers come in the order of the frames

    def sent() -> Iterator[Pair]:
        for pair in source:
            in_flight.append(pair)
            yield pair

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    tracked = lost = 0

    def tell(reason: Exception) -> None:
        text = f"duotrack-client: {reason}: looking for the service"
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    session = client.session(box, model=model, on_reconnect=tell)
    with Progress(*columns, console=console) as progress, session:
        task = progress.add_task("tracking", total=source.count, state="")
        for result in session.stream(sent()):
            pair = in_flight.popleft()
            sink.write(pair, result)
            tracked += 1
            lost += result.state is TargetState.LOST
            progress.update(task, advance=1, state=result.state)
        progress.update(task, total=tracked)
    console.print(f"{tracked} frames tracked, target lost in {lost}", highlight=False)
