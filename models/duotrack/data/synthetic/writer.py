"""Scenes on disk, in the layout of LasHeR: a folder of frames or two videos, with the truth as text beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.synthetic.scene import Scene
from duotrack.data.synthetic.tracks import FRAME_RATE
from duotrack.errors import SourceError
from duotrack.frames import FramePair

GENERATOR_VERSION = 1
"""Raised whenever the frames of a config change."""

JPEG_QUALITY = 92

Form: TypeAlias = Literal["frames", "video"]


def write_scene(
    scene: Scene, directory: Path, form: Form = "frames", progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a scene and its truth into a new or empty ``directory``.

    ``frames`` gives ``visible/000001.jpg`` and ``infrared/000001.png`` and so on, ``video`` gives ``visible.mp4``
    and ``infrared.mp4`` (``.avi`` where OpenCV cannot write the former). Both give ``visible.txt``,
    ``infrared.txt`` and ``init.txt`` with a box x,y,w,h a line (0,0,0,0 where the target is not in the frame; init
    is visible's), ``visibility.txt``, and ``scene.json``. A line of text follows its frame, so that a run that is
    broken off leaves a shorter but valid sequence.

    Args:
        progress: called after each frame with the number of frames written and of all frames.

    Raises:
        ValueError: the form is unknown, or a video is asked for 16-bit thermal frames.
        SourceError: the directory is not empty, or something cannot be written.
    """
    if form not in ("frames", "video"):
        raise ValueError(f"form must be 'frames' or 'video', got {form!r}")
    if form == "video" and scene.config.thermal_bits == 16:
        raise ValueError("a video holds 8-bit thermal frames only: write form 'frames', or set thermal_bits to 8")
    try:
        _prepare(directory)
        _describe(scene, directory)
        with ExitStack() as stack:
            sink: _Sink = _Frames(directory) if form == "frames" else _Videos(directory, scene)
            stack.callback(sink.close)
            names = ("visible", "infrared", "init", "visibility")
            texts = [stack.enter_context((directory / f"{name}.txt").open("w", encoding="ascii")) for name in names]
            for number, frame in enumerate(scene, start=1):
                sink.write(number, frame.pair)
                lines = (_line(frame.box), _line(frame.thermal_box), _line(frame.box), f"{frame.visibility:.4f}")
                for text, line in zip(texts, lines, strict=True):
                    _append(text, line)
                if progress is not None:
                    progress(number, len(scene))
    except OSError as error:
        raise SourceError(f"cannot write a scene to {directory}: {error.strerror or error}") from error


class _Sink(Protocol):
    def write(self, number: int, pair: FramePair) -> None: ...
    def close(self) -> None: ...


class _Frames:
    """One image file per frame and modality; a file appears only when it is complete."""

    def __init__(self, directory: Path) -> None:
        self._visible, self._infrared = directory / "visible", directory / "infrared"
        self._visible.mkdir()
        self._infrared.mkdir()

    def write(self, number: int, pair: FramePair) -> None:
        assert pair.rgb is not None
        assert pair.thermal is not None
        colour = cv2.cvtColor(pair.rgb, cv2.COLOR_RGB2BGR)
        _save(self._visible / f"{number:06d}.jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        _save(self._infrared / f"{number:06d}.png", pair.thermal, [cv2.IMWRITE_PNG_COMPRESSION, 3])

    def close(self) -> None:
        pass


class _Videos:
    """One video per modality."""

    def __init__(self, directory: Path, scene: Scene) -> None:
        size = (scene.config.width, scene.config.height)
        self._visible, self._infrared = _Video(directory, "visible", size), _Video(directory, "infrared", size)

    def write(self, number: int, pair: FramePair) -> None:  # noqa: ARG002 (a video numbers its frames itself)
        assert pair.rgb is not None
        assert pair.thermal is not None
        self._visible.write(cv2.cvtColor(pair.rgb, cv2.COLOR_RGB2BGR))
        self._infrared.write(cv2.cvtColor(np.asarray(pair.thermal, np.uint8), cv2.COLOR_GRAY2BGR))

    def close(self) -> None:
        try:
            self._visible.close()
        finally:
            self._infrared.close()


class _Video:
    def __init__(self, directory: Path, name: str, size: tuple[int, int]) -> None:
        for suffix, codec in ((".mp4", "mp4v"), (".avi", "MJPG")):
            self._path = directory / (name + suffix)
            self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*codec), FRAME_RATE, size)
            if self._writer.isOpened():
                break
            self._path.unlink(missing_ok=True)
        else:
            raise SourceError(
                f"OpenCV can write neither mp4v nor MJPG video to {directory}; write form 'frames' instead"
            )
        self._written = 0

    def write(self, image: NDArray[Any]) -> None:
        self._writer.write(image)
        self._written += 1

    def close(self) -> None:
        self._writer.release()
        # OpenCV's writer says nothing where it fails, as on a disk that is full.
        reader = cv2.VideoCapture(str(self._path))
        frames = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
        reader.release()
        if frames < self._written:
            raise SourceError(
                f"cannot write {self._path}: it has {frames} of {self._written} frames; is the disk full?"
            )


def _prepare(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise SourceError(f"cannot write a scene to {directory}: it is a file; name a new or empty directory")
    if directory.exists() and any(directory.iterdir()):
        raise SourceError(f"cannot write a scene to {directory}: it is not empty; name a new or empty directory")
    directory.mkdir(parents=True, exist_ok=True)


def _describe(scene: Scene, directory: Path) -> None:
    """The config, and what the seed made of it."""
    plan = scene.plan
    record: dict[str, Any] = {
        "generator": "duotrack.data.synthetic",
        "version": GENERATOR_VERSION,
        "config": asdict(scene.config),
        "view": plan.view,
        "target": plan.kind,
        "light": plan.light,
        "exits": [[span.start, span.stop] for span in plan.exits],
        "occlusions": list(plan.occlusions),
        "crossover": plan.crossover and [plan.crossover.start, plan.crossover.stop],
    }
    (directory / "scene.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _save(path: Path, image: NDArray[Any], options: list[int]) -> None:
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise SourceError(f"OpenCV cannot encode {path.name}: {image.shape} {image.dtype}")
    part = path.with_suffix(".part")
    part.write_bytes(data.tobytes())
    part.replace(path)


def _append(text: TextIO, line: str) -> None:
    text.write(line + "\n")
    text.flush()


def _line(box: Box | None) -> str:
    return "0,0,0,0" if box is None else box.text()
