"""Cars, vans and buses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from duotrack.data.synthetic.actor import Actor, Pose
from duotrack.data.synthetic.figure import Figure, Material, Point
from duotrack.data.synthetic.looks import detail_texture, paint
from duotrack.data.synthetic.noise import Pixels


@dataclass(frozen=True, slots=True)
class _Model:
    """A vehicle's shape: side views (x, y) of its body and cabin, counter-clockwise, and its wheels, in metres."""

    body: tuple[tuple[float, float], ...]
    cabin: tuple[tuple[float, float], ...]
    panes: tuple[tuple[tuple[float, float], ...], ...]
    wheels: tuple[float, ...]
    tyre: float
    width: float
    glazed: tuple[int, ...] = (1, 3)


_SEDAN = _Model(
    body=((-2.2, 0.28), (2.2, 0.28), (2.25, 0.62), (2.05, 0.76), (0.95, 0.93), (-1.7, 0.96), (-2.15, 0.92)),
    cabin=((-1.75, 0.94), (1.05, 0.92), (0.35, 1.42), (-1.05, 1.45)),
    panes=(
        ((-1.4, 0.97), (-0.32, 0.97), (-0.32, 1.37), (-0.98, 1.37)),
        ((-0.22, 0.97), (0.84, 0.97), (0.32, 1.35), (-0.22, 1.37)),
    ),
    wheels=(-1.35, 1.38), tyre=0.33, width=1.8,
)  # fmt: skip
_HATCH = _Model(
    body=((-1.9, 0.28), (1.95, 0.28), (2.0, 0.65), (1.75, 0.82), (0.95, 0.98), (-1.8, 1.0), (-1.95, 0.9)),
    cabin=((-1.85, 0.98), (1.1, 0.96), (0.4, 1.5), (-1.55, 1.53)),
    panes=(
        ((-1.6, 1.02), (-0.42, 1.02), (-0.42, 1.44), (-1.4, 1.44)),
        ((-0.3, 1.02), (0.88, 1.02), (0.36, 1.42), (-0.3, 1.44)),
    ),
    wheels=(-1.2, 1.25), tyre=0.32, width=1.75,
)  # fmt: skip
_VAN = _Model(
    body=((-2.6, 0.3), (2.6, 0.3), (2.62, 0.9), (2.3, 1.12), (-2.6, 1.12)),
    cabin=((-2.6, 1.1), (2.28, 1.1), (1.55, 2.1), (-2.58, 2.15)),
    panes=(((0.55, 1.2), (1.95, 1.2), (1.45, 1.9), (0.55, 1.9)),),
    wheels=(-1.6, 1.65), tyre=0.36, width=2.0, glazed=(1,),
)  # fmt: skip
_BUS = _Model(
    body=((-5.0, 0.35), (5.0, 0.35), (5.05, 1.3), (-5.0, 1.3)),
    cabin=((-5.0, 1.28), (5.05, 1.28), (4.9, 2.95), (-4.95, 2.95)),
    panes=tuple(((x, 1.4), (x + 1.35, 1.4), (x + 1.35, 2.35), (x, 2.35)) for x in (-4.6, -3.1, -1.6, -0.1, 1.4, 3.2)),
    wheels=(-3.1, 3.2), tyre=0.48, width=2.5,
)  # fmt: skip
_MODELS = (_SEDAN, _HATCH, _SEDAN, _VAN, _BUS, _HATCH)


@dataclass(frozen=True, slots=True)
class _Vehicle:
    air: float
    model: _Model
    paint: Material
    trim: Material
    glass: Material
    bonnet: Material
    grille: Material
    tyre: Material
    rim: Material
    lamp: Material
    tail: Material

    def figure(self, pose: Pose) -> Figure:
        figure, model = Figure(self.air, solid=True), self.model
        half = model.width / 2
        for x in model.wheels:  # the far wheels and the dark between them first
            figure.face(_disc(x, model.tyre, -half * 0.9, model.tyre), None, self.tyre)
        nose = max(range(len(model.body)), key=lambda i: model.body[i][0])
        engine = [self.bonnet if nose <= i <= nose + 1 else self.paint for i in range(len(model.body))]
        engine[nose - 1] = self.grille
        figure.prism(model.body, half, self.paint, engine)
        cabin = [self.glass if i in model.glazed else self.paint for i in range(len(model.cabin))]
        figure.prism(model.cabin, half * 0.93, self.paint, cabin)
        for side in (half, -half):
            normal = (0.0, 0.0, side)
            for pane in model.panes:
                figure.face([(x, y, side * 0.935) for x, y in pane], normal, self.glass)
            rear, front = model.body[0], model.body[1]
            sill = [
                (rear[0], rear[1], side),
                (front[0], rear[1], side),
                (front[0], rear[1] + 0.16, side),
                (rear[0], rear[1] + 0.16, side),
            ]
            figure.face(sill, normal, self.trim)
            for x in model.wheels:
                self._wheel(figure, x, side * 1.01, pose.travelled / model.tyre)
            for x, normal_x, material in ((front[0] + 0.04, 1, self.lamp), (rear[0] - 0.02, -1, self.tail)):
                z, y = side * 0.72, model.body[2][1] - 0.02
                corners = [(x, y - 0.16, z - 0.17), (x, y - 0.16, z + 0.17), (x, y, z + 0.17), (x, y, z - 0.17)]
                figure.face(corners, (normal_x, 0, 0), material)
        return figure

    def _wheel(self, figure: Figure, x: float, z: float, turn: float) -> None:
        r, normal = self.model.tyre, (0.0, 0.0, z)
        figure.face(_disc(x, r, z, r), normal, self.tyre)
        figure.face(_disc(x, r, z, r * 0.62), normal, self.rim)
        for i in range(2):
            c, s = r * 0.58 * math.cos(-turn + i * math.pi / 2), r * 0.58 * math.sin(-turn + i * math.pi / 2)
            bar = [
                (x - c + s / 6, r - s - c / 6, z),
                (x + c + s / 6, r + s - c / 6, z),
                (x + c - s / 6, r + s + c / 6, z),
                (x - c - s / 6, r - s + c / 6, z),
            ]
            figure.face(bar, normal, self.tyre)


def _disc(x: float, y: float, z: float, radius: float) -> list[Point]:
    steps = [i * math.pi / 7 for i in range(14)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a), z) for a in steps]


def vehicle(rng: np.random.Generator, air: float, still: Pixels | None) -> Actor:
    model = _MODELS[int(rng.integers(len(_MODELS)))]
    colour, engine = paint(rng), rng.uniform(14, 30)
    body = _Vehicle(
        air=air,
        model=model,
        paint=Material(colour, air + rng.uniform(4, 7), 0.9),
        trim=Material((38, 38, 42), air + 9),
        glass=Material((52, 62, 74), air + 2, 0.8),
        bonnet=Material(colour, air + engine * 0.7, 0.9),
        grille=Material((46, 46, 50), air + engine),
        tyre=Material((26, 26, 28), air + 14),
        rim=Material((150, 152, 158), air + 9, 0.75),
        lamp=Material((250, 246, 226), air + 12),
        tail=Material((190, 24, 20), air + 6),
    )
    tall, long = max(y for _, y in model.cabin), model.body[2][0] - model.body[0][0]
    return Actor(
        "vehicle",
        body,
        tall,
        long,
        9.0,
        0.7,
        detail_texture(rng, still, 0.05, patterns=("plain",)),
        headlights=True,
        reverses=True,
    )
