"""Four-legged animals, and blobs: targets without a class that change their shape."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from duotrack.data.synthetic.actor import Actor, Pose
from duotrack.data.synthetic.figure import Colour, Figure, Material
from duotrack.data.synthetic.looks import cloth, detail_texture, mix, paint
from duotrack.data.synthetic.noise import Pixels


@dataclass(frozen=True, slots=True)
class _Animal:
    air: float
    leg: float
    trunk: float
    girth: float
    neck: float
    rise: float
    snout: float
    ears: float
    tail: float
    coat: Material
    belly: Material
    face: Material
    hoof: Material

    def figure(self, pose: Pose) -> Figure:
        figure = Figure(self.air)
        swing = min(pose.pace, 1.6)
        phase = 2 * math.pi * pose.travelled / (self.leg * 2.3)
        hip = self.leg + 0.03 * self.leg * swing * math.cos(2 * phase)
        rear, front, r = -self.trunk / 2, self.trunk / 2, self.girth
        for x, z, offset in ((front, 1, 0.0), (front, -1, math.pi), (rear, 1, math.pi), (rear, -1, 0.0)):
            self._leg(figure, x, z * r * 0.6, hip, phase + offset, swing)
        figure.capsule((rear, hip + r * 0.5, 0), (front * 0.9, hip + r * 0.55, 0), r * 0.98, r * 1.08, self.coat)
        figure.capsule((rear, hip + r * 0.2, 0), (front * 0.6, hip + r * 0.1, 0), r * 0.6, r * 0.8, self.belly)
        nod = 0.06 * swing * math.sin(2 * phase)
        head = (
            front + self.neck * math.cos(self.rise + nod),
            hip + r * 0.8 + self.neck * math.sin(self.rise + nod),
            0.0,
        )
        figure.capsule((front * 0.92, hip + r * 0.75, 0), head, r * 0.75, r * 0.45, self.coat)
        muzzle = (head[0] + self.snout, head[1] - self.snout * 0.45, 0.0)
        figure.capsule(head, muzzle, r * 0.5, r * 0.26, self.face)
        for z in (1, -1):
            ear = (head[0] - self.ears * 0.5, head[1] + self.ears, z * r * 0.5)
            figure.capsule((head[0] - r * 0.1, head[1] + r * 0.25, z * r * 0.3), ear, r * 0.14, r * 0.07, self.face)
        wag = 0.4 * math.sin(5 * pose.time)
        tip = (rear - r - self.tail * 0.7, hip + r * 0.4 + self.tail * (0.2 + 0.15 * wag), self.tail * wag)
        figure.capsule((rear - r * 0.8, hip + r * 0.8, 0), tip, r * 0.2, r * 0.1, self.coat)
        return figure

    def _leg(self, figure: Figure, x: float, z: float, hip: float, turn: float, swing: float) -> None:
        angle = 0.5 * swing * math.sin(turn)
        flex = (0.15 + 0.8 * swing * max(0.0, math.cos(turn))) * (1 if x > 0 else 0.8)
        knee = (x + 0.52 * self.leg * math.sin(angle), hip - 0.5 * self.leg * math.cos(angle), z)
        foot = (
            knee[0] + 0.5 * self.leg * math.sin(angle - flex),
            max(0.03, knee[1] - 0.5 * self.leg * math.cos(angle - flex)),
            z,
        )
        figure.capsule((x, hip + self.girth * 0.2, z), knee, self.girth * 0.42, self.girth * 0.22, self.coat)
        figure.capsule(knee, foot, self.girth * 0.2, self.girth * 0.13, self.hoof)


_BREEDS = (  # leg, trunk, girth, neck, rise, snout, ears, tail
    (0.36, 0.5, 0.15, 0.24, 0.75, 0.16, 0.1, 0.3),  # dog
    (0.75, 0.85, 0.22, 0.5, 1.0, 0.24, 0.16, 0.12),  # deer
    (0.95, 1.25, 0.33, 0.75, 0.85, 0.42, 0.15, 0.55),  # horse
    (0.75, 1.35, 0.4, 0.4, 0.3, 0.34, 0.12, 0.6),  # cow
)
_COATS: tuple[Colour, ...] = (
    (122, 84, 50),
    (66, 46, 34),
    (170, 132, 88),
    (190, 186, 178),
    (42, 38, 36),
    (142, 104, 66),
)


def animal(rng: np.random.Generator, air: float, still: Pixels | None) -> Actor:
    breed = _BREEDS[int(rng.integers(len(_BREEDS)))]
    leg, trunk, girth, neck, rise, snout, ears, tail = (value * rng.uniform(0.92, 1.08) for value in breed)
    colour = _COATS[int(rng.integers(len(_COATS)))]
    warm = air + 0.6 * (34 - air)
    body = _Animal(
        air, leg, trunk, girth, neck, rise, snout, ears, tail,
        coat=Material(colour, warm),
        belly=Material(mix(colour, (220, 210, 195), 0.4), warm + 2.5),
        face=Material(mix(colour, (30, 26, 24), 0.25), warm + 3.5),
        hoof=Material(mix(colour, (34, 28, 26), 0.5), warm - 2),
    )  # fmt: skip
    height = leg + girth + neck * math.sin(rise) + girth
    length = trunk + girth * 2 + neck * math.cos(rise) + snout
    return Actor(
        "animal", body, height, length, 1.2 + leg, 2.5, detail_texture(rng, still, 0.3, patterns=("plain", "patches"))
    )


@dataclass(frozen=True, slots=True)
class _Blob:
    """A soft heap of balls that swell and drift: a target without a class."""

    air: float
    materials: tuple[Material, ...]
    orbits: tuple[tuple[float, float, float, float, float], ...] = field(repr=False)

    def figure(self, pose: Pose) -> Figure:
        figure = Figure(self.air)
        for i, (angle, radius, size, tempo, offset) in enumerate(self.orbits):
            swell = math.sin(tempo * pose.time + offset)
            a = angle + 0.5 * swell + 0.4 * pose.travelled
            r = radius * (1 + 0.35 * swell)
            centre = (r * math.cos(a), 0.62 + 0.55 * r * math.sin(a * 1.3 + offset), r * math.sin(a))
            figure.ball(centre, size * (1 + 0.18 * math.cos(1.7 * tempo * pose.time + offset)), self.materials[i % 3])
        return figure


def blob(rng: np.random.Generator, air: float, still: Pixels | None) -> Actor:
    colour, warm = paint(rng), air + rng.choice([-1.0, 1.0, 1.0]) * rng.uniform(7, 14)
    materials = tuple(Material(mix(colour, cloth(rng), share), warm + 2 * share) for share in (0.0, 0.3, 0.6))
    orbits = [(0.0, 0.05, 0.42, 0.9, 0.0)]
    orbits += [
        (
            rng.uniform(0, 6.3),
            rng.uniform(0.25, 0.5),
            rng.uniform(0.14, 0.3),
            rng.uniform(0.8, 2.2),
            rng.uniform(0, 6.3),
        )
        for _ in range(9)
    ]
    return Actor("blob", _Blob(air, materials, tuple(orbits)), 1.3, 1.4, 1.3, 2.0, detail_texture(rng, still, 0.35))
