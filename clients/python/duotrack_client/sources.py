"""Frame pairs from files: a folder of images or a video for each modality."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack_client.errors import SourceError
from duotrack_client.pairs import Pair

IMAGE_SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# The orientation that a camera noted in the metadata is ignored: the two cameras would not agree on it.
_READ_RGB: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_READ_THERMAL: Final = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION

_GRAY16: Final = int.from_bytes(b"Y1\x00\x10", "little")  # FFmpeg's tag of 16-bit grey


WHOLE: Final = 0.98
"""Share of the frames that a video says it has, for some count a little generously, which must be there."""


class Frames(Protocol):
    """The frames of one modality, in order."""

    @property
    def count(self) -> int | None:
        """How many there are, as far as that is known before they are read."""

    @property
    def fps(self) -> float | None:
        """Frames per second, where that is known."""

    def __iter__(self) -> Iterator[NDArray[Any]]: ...


def open_rgb(path: Path) -> Frames:
    """The colour frames at ``path``, (H, W, 3) uint8 in R, G, B order.

    Raises:
        SourceError: there is no folder with images and no video at ``path``; and on reading, a damaged frame.
    """
    return _open(path, _read_rgb, _video_rgb)


def open_thermal(path: Path) -> Frames:
    """The thermal frames at ``path``, (H, W) uint8, or uint16 where the files have 16 bits.

    Raises:
        SourceError: there is no folder with images and no video at ``path``; and on reading, a damaged frame.
    """
    return _open(path, _read_thermal, _video_thermal)


@dataclass(frozen=True, slots=True)
class PairSource:
    """Pairs of the frames with the same index, up to the end of the shorter modality.

    Attributes:
        rgb, thermal: the frames of the two modalities; either may be None, but not both.
        warn: told, in words, when one modality ends before the other, when a video ends clearly before it says that it
            does, and when files are paired whose numbers do not go together.
    """

    rgb: Frames | None
    thermal: Frames | None
    warn: Callable[[str], None]

    def __post_init__(self) -> None:
        if self.rgb is None and self.thermal is None:
            raise SourceError("expected colour frames, thermal frames, or both; got neither")

    @property
    def count(self) -> int | None:
        """How many pairs there are, as far as that is known before they are read."""
        counts = [frames.count for frames in (self.rgb, self.thermal) if frames is not None]
        known = [count for count in counts if count is not None]
        return min(known) if len(known) == len(counts) else None

    @property
    def fps(self) -> float | None:
        """Frames per second, where that is known."""
        rates = [frames.fps for frames in (self.rgb, self.thermal) if frames is not None]
        return next((rate for rate in rates if rate is not None), None)

    def __iter__(self) -> Iterator[Pair]:
        """The pairs.

        Raises:
            SourceError: a frame is damaged, or the two images of a pair differ in size.
        """
        if self.rgb is None or self.thermal is None:
            yield from self._single()
            return
        if (odd := _odd_pair(self.rgb, self.thermal)) is not None:
            self.warn(f"{odd[0]} is paired with {odd[1]}, as the next in its folder: is a frame missing?")
        index = 0
        colour, thermal = iter(self.rgb), iter(self.thermal)
        while True:
            rgb_frame, thermal_frame = next(colour, None), next(thermal, None)
            if rgb_frame is None or thermal_frame is None:
                break
            if rgb_frame.shape[:2] != thermal_frame.shape:
                raise SourceError(
                    f"frame {index}: expected colour and thermal frames of the same size, "
                    f"got {_size(rgb_frame)} and {_size(thermal_frame)}"
                )
            yield Pair(rgb_frame, thermal_frame)
            index += 1
        if rgb_frame is not None or thermal_frame is not None:
            ended, longer = ("colour", "thermal") if rgb_frame is None else ("thermal", "colour")
            self.warn(f"the {ended} frames end after {index}, the {longer} frames go on: stopped there")
        self._check_end(self.rgb if rgb_frame is None else self.thermal, index)

    def _single(self) -> Iterator[Pair]:
        frames, read = self.rgb or self.thermal, 0
        assert frames is not None
        for frame in frames:
            yield Pair(rgb=frame) if frames is self.rgb else Pair(thermal=frame)
            read += 1
        self._check_end(frames, read)

    def _check_end(self, ended: Frames, read: int) -> None:
        """Tell the user where a video is damaged in the middle: the library that reads it just stops."""
        if isinstance(ended, VideoFrames) and ended.count is not None and read < WHOLE * ended.count - 1:
            self.warn(f"{ended.path} should have {ended.count} frames, and can be read up to frame {read}")


@dataclass(frozen=True, slots=True)
class FolderFrames:
    """The images of a folder, one a frame, in natural order: ``9.png`` before ``10.png``."""

    paths: tuple[Path, ...]
    read: Callable[[Path], NDArray[Any] | None]

    @property
    def count(self) -> int | None:
        return len(self.paths)

    @property
    def fps(self) -> float | None:
        return None

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for path in self.paths:
            try:
                image = self.read(path)
            except cv2.error as error:  # as where the header tells of more pixels than OpenCV takes
                raise SourceError(f"cannot read {path} as an image: {error.err}") from error
            if image is None:
                raise SourceError(f"cannot read {path} as an image: is the file damaged?")
            if image.dtype not in (np.uint8, np.uint16):
                raise SourceError(f"expected 8-bit or 16-bit samples in {path}, got {image.dtype}")
            yield image


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """The frames of a video file."""

    path: Path
    count: int | None
    fps: float | None
    convert: Callable[[NDArray[Any]], NDArray[Any]]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        capture = _open_video(self.path)
        try:
            read, image = capture.read()
            if not read:
                raise _unreadable(self.path)
            while read:
                yield self.convert(image)
                read, image = capture.read()
        finally:
            capture.release()


def open_pairs(rgb: Path | None, thermal: Path | None, warn: Callable[[str], None]) -> PairSource:
    """Pairs of the frames at two paths, either of which may be None; ``warn`` is as in ``PairSource``.

    Raises:
        SourceError: both are None, or there are no frames at a path.
    """
    return PairSource(
        rgb=None if rgb is None else open_rgb(rgb),
        thermal=None if thermal is None else open_thermal(thermal),
        warn=warn,
    )


def natural_key(path: Path) -> list[tuple[int, str]]:
    """A sorting key that takes runs of digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]


def _open(
    path: Path,
    read: Callable[[Path], NDArray[Any] | None],
    convert: Callable[[NDArray[Any]], NDArray[Any]],
) -> Frames:
    if path.is_dir():
        images = (entry for entry in path.iterdir() if _is_image(entry))
        paths = tuple(sorted(images, key=natural_key))
        if not paths:
            raise SourceError(f"expected images in the folder {path}, found none ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return FolderFrames(paths, read)
    if not path.exists():
        raise SourceError(f"expected a folder of images or a video, found nothing at {path}")
    capture = _open_video(path)
    count, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return VideoFrames(path, count if count > 0 else None, fps if fps > 0 else None, convert)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _open_video(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise _unreadable(path)
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # as images are read
    if int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) == _GRAY16:
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)  # to 8 bits, it means
    return capture


def _read_rgb(path: Path) -> NDArray[Any] | None:
    return cv2.imread(str(path), _READ_RGB)


def _read_thermal(path: Path) -> NDArray[Any] | None:
    return cv2.imread(str(path), _READ_THERMAL)


def _video_rgb(image: NDArray[Any]) -> NDArray[Any]:
    if image.ndim != 3:
        raise SourceError(f"expected colour frames in the video, got {image.dtype} grey ones")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _video_thermal(image: NDArray[Any]) -> NDArray[Any]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image


def _unreadable(path: Path) -> SourceError:
    return SourceError(f"cannot read {path} as a video: is it one, and is it whole?")


def _odd_pair(rgb: Frames, thermal: Frames) -> tuple[Path, Path] | None:
    """The first two files of one pair whose numbers are not as far apart as those of the first pair.

    None where all are, and where most numbers of one folder are not in the other, such as times of two clocks.
    """
    if not isinstance(rgb, FolderFrames) or not isinstance(thermal, FolderFrames):
        return None
    colour_numbers, thermal_numbers = ([_number(path) for path in frames.paths] for frames in (rgb, thermal))
    shared = set(colour_numbers) & set(thermal_numbers) - {None}
    if 2 * len(shared) < min(len(colour_numbers), len(thermal_numbers)):
        return None
    offset: int | None = None
    for index, numbers in enumerate(zip(colour_numbers, thermal_numbers, strict=False)):
        if numbers[0] is None or numbers[1] is None:
            return None
        if offset is None:
            offset = numbers[1] - numbers[0]
        if numbers[1] - numbers[0] != offset:
            return rgb.paths[index], thermal.paths[index]
    return None


def _number(path: Path) -> int | None:
    """The last number in a file's name, before its suffix."""
    runs = re.findall(r"[0-9]+", path.stem)
    return int(runs[-1]) if runs else None


def _size(image: NDArray[Any]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
