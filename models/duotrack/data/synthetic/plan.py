"""What happens in a scene and when: the place, the paths, the light, the events.

Every path is an array over all frames, so that any frame can be drawn without the ones before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from duotrack.data.synthetic.actor import Actor
from duotrack.data.synthetic.casting import cast
from duotrack.data.synthetic.config import CAST, LIGHTS, VIEWS, Kind, Light, SceneConfig, View
from duotrack.data.synthetic.geometry import Camera, Ground
from duotrack.data.synthetic.noise import Field, Pixels, plateau, stream, wander
from duotrack.data.synthetic.paths import draw_paths
from duotrack.data.synthetic.tracks import FRAME_RATE, Track

ROOM = {"exit": 60, "occlusion": 24}
"""The fewest frames that an event is given, and its share of a longer sequence."""


@dataclass(frozen=True, slots=True)
class Span:
    """Frames ``start`` to ``stop`` (exclusive)."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All that is decided before anything is drawn.

    Attributes:
        daylight: (n,) from 0 at night to 1 at noon.
        shade: (n,) how much of the daylight passing clouds leave.
        sun: metres towards X and Z that the shadow of one metre falls.
        air: air temperature in °C.
        distractors: tracks of the target's kind; ``bystanders`` are of other kinds and always behind.
        exits: when the target is wholly outside the frame, at least.
        occlusions: frames in which something stands before the target.
        crossover: when the surroundings have passed the target's temperature; ``crossing`` (n,) is 1 there.
    """

    view: View
    light: Light
    ground: Ground
    camera: Camera
    target: Track
    distractors: tuple[Track, ...]
    bystanders: tuple[Track, ...]
    daylight: Field
    shade: Field
    sun: tuple[float, float]
    air: float
    exits: tuple[Span, ...]
    occlusions: tuple[int, ...]
    crossover: Span | None
    crossing: Field

    @property
    def kind(self) -> Kind:
        return self.target.actor.kind


def make_plan(config: SceneConfig, attempt: int = 0, backgrounds: Sequence[Pixels] = ()) -> Plan:
    """Draw a plan from the config's seed; another ``attempt`` is another draw of everything that is not set."""

    def draw(label: str) -> np.random.Generator:
        return stream(config.seed, label, attempt)

    place = draw("place")
    view = config.view or _pick_view(place, config.target)
    kind = config.target or _commonest_first(place, CAST[view])
    light = config.light or _pick_light(place)
    air = place.uniform(*{"day": (9, 20), "dusk": (5, 14), "night": (-4, 10)}[light])
    still = backgrounds[int(place.integers(len(backgrounds)))] if backgrounds else None
    actor = cast(kind, draw("target actor"), air, still)
    ground = _ground(place, config, view, actor)

    events, n = draw("events"), config.frames
    exits, slots, outside, side = _schedule(events, config)
    camera, x, row = draw_paths(draw, config, ground, actor, outside, side)
    lift = np.float32(actor.altitude) + np.float32(0.25 * actor.altitude) * wander(draw("lift"), n, 50)
    target = Track.along(actor, ground, x, row, lift)

    occlusions = tuple(_least_visited(target, ground, slot) for slot in slots)

    others = draw("others")
    distractors = tuple(
        _companion(others, config, ground, target, _distractor(others, kind, config, attempt, air, still))
        for _ in range(config.distractors)
    )
    bystanders = tuple(
        _companion(others, config, ground, target, stranger, behind=True)
        for stranger in _strangers(others, view, actor, air)
    )
    daylight, shade = _daylight(draw("light"), light, n)
    crossover, crossing = _crossover(events, config)
    angle, length = place.uniform(0, 2 * math.pi), place.uniform(0.4, 1.6)
    return Plan(
        view=view, light=light, ground=ground, camera=camera, target=target,
        distractors=distractors, bystanders=bystanders, daylight=daylight, shade=shade,
        sun=(length * math.cos(angle), length * abs(math.sin(angle))), air=air,
        exits=exits, occlusions=occlusions, crossover=crossover, crossing=crossing,
    )  # fmt: skip


def _pick_view(rng: np.random.Generator, kind: Kind | None) -> View:
    views = [view for view in VIEWS if kind is None or kind in CAST[view]]
    return views[int(rng.integers(len(views)))]


def _pick_light(rng: np.random.Generator) -> Light:
    return LIGHTS[int(rng.choice(3, p=(0.45, 0.2, 0.35)))]


def _commonest_first(rng: np.random.Generator, kinds: Sequence[Kind]) -> Kind:
    weights = 1 / (np.arange(len(kinds)) + 1.0)
    return kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]


def _ground(rng: np.random.Generator, config: SceneConfig, view: View, actor: Actor) -> Ground:
    """Choose how steeply the camera looks down, and how large the target is at home."""
    low, high = {"vehicle": (0.26, 0.6), "boat": (0.2, 0.5), "drone": (0.12, 0.3), "blob": (0.14, 0.34)}.get(
        actor.kind, (0.18, 0.42)
    )
    if view == "aerial":
        low, high = (0.14, 0.34) if actor.kind == "vehicle" else (0.08, 0.16)
        tilt = math.pi / 2
    elif view == "street" or rng.uniform() < 0.4:
        tilt = math.radians(rng.uniform(4, 11))
    else:
        tilt = math.radians(rng.uniform(17, 34))
    smallest = {"person": 44, "cyclist": 40}.get(actor.kind, 34)
    size = min(max(rng.uniform(low, high) * config.height, smallest), 0.42 * min(config.height, config.width))
    return Ground(focal=rng.uniform(1.3, 2.2) * config.height, tilt=tilt, density=size / actor.size)


def _schedule(rng: np.random.Generator, config: SceneConfig) -> tuple[tuple[Span, ...], tuple[Span, ...], Field, Field]:
    """Share the sequence out between exits and occlusions.

    Returns the exits, the spans for one occlusion each, and over all frames how far the target is out (0 to 1)
    and to which side.
    """
    n, first = config.frames, 12
    room = max(n - first - 4, 0)
    exiting = config.exits * (1 + n // 400) if room >= ROOM["exit"] else 0
    wanted = ["exit"] * exiting + ["occlusion"] * (config.occlusion * (1 + n // 360))
    while sum(ROOM[kind] for kind in wanted) > room:
        wanted.pop()
    kinds = [wanted[int(i)] for i in rng.permutation(len(wanted))]
    stretch = room / max(sum(ROOM[kind] for kind in kinds), 1)
    exits, occlusions = [], []
    outside, side = np.zeros(n, np.float32), np.ones(n, np.float32)
    start = float(first)
    for kind in kinds:
        slot = ROOM[kind] * stretch
        if kind == "occlusion":
            occlusions.append(Span(int(start + 0.2 * slot), int(start + 0.8 * slot)))
        else:
            length = min(slot, 110.0)
            rise, hold = 0.4 * length, 0.16 * length
            begin = start + rng.uniform(0, slot - 2 * rise - hold)
            bump = plateau(n, begin, rise, hold)
            side[bump > 0] = rng.choice([-1.0, 1.0])
            outside = np.maximum(outside, bump)
            exits.append(Span(math.ceil(begin + rise), math.floor(begin + rise + hold) + 1))
        start += slot
    return tuple(exits), tuple(occlusions), outside, side


def _least_visited(track: Track, ground: Ground, span: Span) -> int:
    """The frame of a span whose place the target is at for the shortest time: what stands there hides it briefly."""
    frames = np.arange(span.start, span.stop, 2)
    reach = 1.2 * track.actor.size * track.scale[frames][:, None]
    apart = np.abs(track.x[frames][:, None] - track.x)
    if ground.overhead:
        apart = np.hypot(apart, track.row[frames][:, None] - track.row)
    return int(frames[np.argmin((apart < reach).sum(axis=1))])


def _distractor(
    rng: np.random.Generator, kind: Kind, config: SceneConfig, attempt: int, air: float, still: Pixels | None
) -> Actor:
    """One of the target's kind; one in three is its twin, where there are any."""
    if rng.uniform() < 1 / 3 and config.twins:
        return cast(kind, stream(config.seed, "target actor", attempt), air, still)
    return cast(kind, rng, air, still)


def _strangers(rng: np.random.Generator, view: View, target: Actor, air: float) -> list[Actor]:
    """Up to two of other kinds, none so large that it would fill the frame."""
    kinds = [kind for kind in CAST[view] if kind not in (target.kind, "drone", "blob")]
    drawn = [cast(kinds[int(rng.integers(len(kinds)))], rng, air) for _ in range(int(rng.integers(3)) if kinds else 0)]
    return [actor for actor in drawn if actor.size < 3.5 * target.size]


def _companion(
    rng: np.random.Generator, config: SceneConfig, ground: Ground, target: Track, actor: Actor, behind: bool = False
) -> Track:
    """An actor that moves near the target, in another lane, now before and now after it."""
    n = config.frames
    right, away = ground.to_metres(target.x, target.row)
    lane = rng.uniform(3, 4) if actor.kind in ("vehicle", "boat") else rng.uniform(0.7, 2.5)
    nearer = config.occlusion and not behind and rng.uniform() < 0.45 and actor.size < 1.5 * target.actor.size
    lane = lane if not nearer else -min(lane, 0.4 * ground.distance if ground.distance else lane)
    spread = 0.5 * config.width / ground.density
    period = max(2.2 * spread / (actor.speed / FRAME_RATE), 60)
    along = np.float32(spread) * wander(rng, n, period) + np.float32(
        rng.uniform(0.2, 0.7) * rng.choice([-1, 1]) * spread
    )
    apart = np.float32(lane * (2.0 if behind else 1.0)) + np.float32(0.25 * abs(lane)) * wander(rng, n, 90)
    x, row = ground.to_pixels(right * np.float32(rng.uniform(0.4, 0.9)) + along, away + apart)
    lift = np.float32(actor.altitude) + np.float32(0.25 * actor.altitude) * wander(rng, n, 45)
    return Track.along(actor, ground, x, row, lift)


def _daylight(rng: np.random.Generator, light: Light, n: int) -> tuple[Field, Field]:
    time = np.linspace(0, 1, n, dtype=np.float32)
    if light == "day":
        level = 0.88 + 0.1 * wander(rng, n, 400)
    elif light == "dusk":
        ends = (rng.uniform(0.45, 0.7), rng.uniform(0.08, 0.25))
        start, stop = ends if rng.uniform() < 0.7 else ends[::-1]
        level = start + (stop - start) * time
    else:
        level = np.float32(rng.uniform(0, 0.04)) * np.ones(n, np.float32)
    shade = 1 - np.float32(rng.uniform(0, 0.35)) * (0.5 + 0.5 * wander(rng, n, 90))
    return np.asarray(level, np.float32), np.asarray(shade, np.float32)


def _crossover(rng: np.random.Generator, config: SceneConfig) -> tuple[Span | None, Field]:
    n = config.frames
    rise, hold = 0.16 * n, rng.uniform(0.12, 0.25) * n
    start = rng.uniform(0.15, 0.35) * n
    if not config.crossover or n < 48:
        return None, np.zeros(n, np.float32)
    span = Span(math.ceil(start + rise), math.floor(start + rise + hold) + 1)
    return span, plateau(n, start, rise, hold)
