"""What a model does on this machine, measured at the start with all its lanes busy, and how many sessions that carries.

The measurement takes the steps of the service on the same code: it decodes a generated pair of 640×480 JPEG images,
and runs the model on it. What it leaves out are sockets and the store, and that the images of real sessions are others.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack_client.protocol import Codec, Frame, Payload
from duotrack_service.decoding import decode_pair
from duotrack_service.inference import Model
from duotrack_service.steps import Job, Map, Step, run

WIDTH, HEIGHT = 640, 480
BOX = Box(300, 200, 40, 60)
"""Of the target, at the start."""
FRAMES = 12
"""Of the generated scene, which then repeats. No frame equals its neighbour: a frozen camera's is ignored."""
RADIUS = 6
"""Of the circle on which the camera moves, in pixels."""
QUALITY = 90


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a model does with all lanes busy.

    Attributes:
        pairs_per_second: of all lanes together.
        decode_ms: median time to decode a pair.
        update_ms: median time of the model's update, for one batch of ``max_batch`` pairs.
        cpu_s_per_pair: time on all cores; cores / ``cpu_s_per_pair`` is what no scheduling can exceed.
    """

    pairs_per_second: float
    decode_ms: float
    update_ms: float
    cpu_s_per_pair: float


@dataclass(frozen=True, slots=True)
class _Drive:
    """What one lane did: its steps, and the seconds that they took."""

    steps: list[Step]
    seconds: float


def measure(model: Model, seconds: float, decode_threads: int = 1) -> Capacity:
    """Keep every lane of ``model`` busy for ``seconds``, and for one step at least; blocks for a little longer.

    Args:
        decode_threads: that decode the pairs of a batch, where the model takes more than one.

    Raises:
        Exception: whatever the model met; it would meet it in service.
    """
    scene = generated_scene()
    started = model.start(decode_pair(scene[0]), BOX, {})[0]
    # A track is never changed, so all lanes and all places in their batches go out from the same one.
    first = [Job(scene[1], {0: started})] * model.max_batch
    with ThreadPoolExecutor(model.lanes) as lanes, ThreadPoolExecutor(decode_threads) as decoders:
        each: Map = decoders.map if model.max_batch > 1 else map
        warm = list(lanes.map(lambda jobs: _step(model, jobs, each), [first] * model.lanes))
        began, worked = time.perf_counter(), time.process_time()
        drives = list(lanes.map(lambda steps: _drive(model, steps, scene, began + seconds, each), warm))
        worked = time.process_time() - worked
    steps = [step for drive in drives for step in drive.steps]
    return Capacity(
        pairs_per_second=sum(len(drive.steps) / drive.seconds for drive in drives),
        decode_ms=statistics.median(step.decode_ms for step in steps),
        update_ms=statistics.median(step.infer_ms for step in steps),
        cpu_s_per_pair=worked / len(steps),
    )


def admission_limit(capacity: Capacity, pairs_per_second_per_session: float) -> int:
    """How many sessions of that rate a machine of that capacity carries; one at least."""
    return max(1, math.floor(capacity.pairs_per_second / pairs_per_second_per_session))


def generated_scene() -> list[Frame]:
    """Encoded pairs of a textured ground, over which the camera goes round in a small circle."""
    rng = np.random.default_rng(0)
    colour, thermal = _ground(rng, 3), _ground(rng, 1)
    frames = []
    for number in range(FRAMES):
        angle = 2 * math.pi * number / FRAMES
        x, y = round(RADIUS * (1 + math.cos(angle))), round(RADIUS * (1 + math.sin(angle)))
        view = np.s_[y : y + HEIGHT, x : x + WIDTH]
        frames.append(Frame(number, 0, _encode(colour[view], "RGB"), _encode(thermal[view], "GRAY")))
    return frames


def _ground(rng: np.random.Generator, channels: int) -> NDArray[np.uint8]:
    """(H, W, channels): octaves of noise, each half as strong as the next coarser one, as in pictures of nature."""
    width, height = WIDTH + 2 * RADIUS, HEIGHT + 2 * RADIUS
    ground = np.full((height, width, channels), 128.0)
    for octave in range(6):
        cells = rng.normal(size=(4 << octave, 5 << octave, channels))
        smooth = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
        ground += 40 / (1 << octave) * smooth.reshape(ground.shape)
    pixels: NDArray[np.uint8] = np.clip(ground, 0, 255).astype(np.uint8)
    return pixels


def _encode(image: NDArray[np.uint8], colorspace: str) -> Payload:
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=QUALITY, colorspace=colorspace)
    return Payload(Codec.JPEG8, data)


def _step(model: Model, jobs: Sequence[Job], each: Map) -> list[Step]:
    outcomes = run(model, jobs, each)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, Step)]


def _drive(model: Model, steps: list[Step], scene: Sequence[Frame], until: float, each: Map) -> _Drive:
    """Step on from ``steps``, those of the scene's second pair, until the time is over."""
    done: list[Step] = []
    began, number = time.perf_counter(), 2
    while not done or time.perf_counter() < until:
        frame = scene[number % len(scene)]
        steps = _step(model, [Job(frame, step.tracks) for step in steps], each)
        done += steps
        number += 1
    return _Drive(done, time.perf_counter() - began)
