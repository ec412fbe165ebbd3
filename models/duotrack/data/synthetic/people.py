"""People on foot and on bicycles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from duotrack.data.synthetic.actor import Actor, Pose
from duotrack.data.synthetic.figure import Figure, Material, Point
from duotrack.data.synthetic.looks import cloth, detail_texture, mix, paint
from duotrack.data.synthetic.noise import Pixels


@dataclass(frozen=True, slots=True)
class _Person:
    air: float
    stature: float
    skin: Material
    hair: Material
    top: Material
    sleeve: Material
    trousers: Material
    shoe: Material
    coat: float
    pack: Material | None
    cadence: float

    def figure(self, pose: Pose) -> Figure:
        figure = Figure(self.air)
        swing = min(pose.pace, 1.7)
        phase = 2 * math.pi * pose.travelled / (self.stature * self.cadence * (0.6 + 0.4 * max(swing, 0.3)))
        k = self.stature / 1.75
        bob = 0.025 * swing * math.cos(2 * phase)
        hip, lean = 0.93 + bob, 0.05 + 0.12 * max(0.0, swing - 1)
        chest_x = 0.45 * math.sin(lean)
        for side in (1, -1):
            turn = phase + (0 if side > 0 else math.pi)
            self._leg(figure, turn, swing, hip, side * 0.095, k)
            self._arm(figure, turn, swing, (chest_x, hip + 0.5, side * 0.22), k)
        for side in (1, -1):
            self._limb(
                figure, (0, hip + 0.02, side * 0.06), (chest_x, hip + 0.42, side * 0.09), 0.125, 0.135, self.top, k
            )
        self._limb(figure, (chest_x, hip + 0.49, 0.16), (chest_x, hip + 0.49, -0.16), 0.075, 0.075, self.top, k)
        if self.coat:
            self._limb(figure, (0, hip + 0.05, 0), (0, hip - self.coat, 0), 0.17, 0.21, self.top, k)
        head = (chest_x + 0.03, hip + 0.71, 0.0)
        self._limb(figure, (chest_x, hip + 0.52, 0), head, 0.06, 0.055, self.skin, k)
        self._limb(
            figure,
            (head[0] + 0.02, head[1] - 0.035, 0),
            (head[0] + 0.02, head[1] + 0.03, 0),
            0.085,
            0.095,
            self.skin,
            k,
        )
        self._limb(
            figure, (head[0] - 0.025, head[1] + 0.055, 0), (head[0] - 0.035, head[1], 0), 0.105, 0.1, self.hair, k
        )
        if self.pack:
            self._limb(figure, (-0.17, hip + 0.18, 0), (chest_x - 0.2, hip + 0.44, 0), 0.13, 0.12, self.pack, k)
        return figure

    def _leg(self, figure: Figure, turn: float, swing: float, hip: float, z: float, k: float) -> None:
        thigh = 0.52 * swing * math.sin(turn) + 0.05
        flex = 0.1 + 0.85 * min(swing, 1.2) * max(0.0, math.cos(turn))
        knee = (0.45 * math.sin(thigh), hip - 0.45 * math.cos(thigh), z)
        ankle = (knee[0] + 0.41 * math.sin(thigh - flex), max(knee[1] - 0.41 * math.cos(thigh - flex), 0.07), z)
        toe = (ankle[0] + 0.17, max(ankle[1] - 0.03 - 0.1 * flex, 0.04), z * 1.2)
        self._limb(figure, (0, hip, z), knee, 0.105, 0.07, self.trousers, k)
        self._limb(figure, knee, ankle, 0.068, 0.045, self.trousers, k)
        self._limb(figure, (ankle[0] - 0.04, ankle[1] - 0.02, z), toe, 0.05, 0.035, self.shoe, k)

    def _arm(self, figure: Figure, turn: float, swing: float, shoulder: Point, k: float) -> None:
        angle = -0.5 * swing * math.sin(turn)
        bend = 0.2 + 0.35 * swing + (0.7 if swing > 1.3 else 0.0)
        elbow = (shoulder[0] + 0.28 * math.sin(angle), shoulder[1] - 0.28 * math.cos(angle), shoulder[2] * 1.15)
        hand = (elbow[0] + 0.24 * math.sin(angle + bend), elbow[1] - 0.24 * math.cos(angle + bend), elbow[2])
        self._limb(figure, shoulder, elbow, 0.06, 0.048, self.top, k)
        self._limb(figure, elbow, hand, 0.045, 0.035, self.sleeve, k)
        self._limb(figure, hand, (hand[0] + 0.03, hand[1] - 0.05, hand[2]), 0.042, 0.03, self.skin, k)

    @staticmethod
    def _limb(figure: Figure, a: Point, b: Point, ra: float, rb: float, material: Material, k: float) -> None:
        figure.capsule((a[0] * k, a[1] * k, a[2] * k), (b[0] * k, b[1] * k, b[2] * k), ra * k, rb * k, material)


def _person_body(rng: np.random.Generator, air: float) -> _Person:
    skin_tone = rng.uniform(0.35, 1.0)
    skin = Material((225 * skin_tone, 178 * skin_tone, 145 * skin_tone), 33.5)
    clothed = air + 0.48 * (33 - air)
    top = Material(cloth(rng), clothed + rng.uniform(-2, 2.5))
    return _Person(
        air=air,
        stature=rng.uniform(1.6, 1.9),
        skin=skin,
        hair=Material(mix((28, 22, 18), (130, 95, 60), rng.uniform() ** 2), air + 0.7 * (33 - air)),
        top=top,
        sleeve=skin if air > 16 and rng.uniform() < 0.6 else top,
        trousers=Material(mix((30, 32, 40), cloth(rng), rng.uniform(0, 0.7)), clothed + rng.uniform(-2.5, 1)),
        shoe=Material(mix((20, 20, 22), (230, 230, 230), float(rng.integers(2))), air + 0.35 * (33 - air)),
        coat=float(rng.choice([0.0, 0.0, 0.15, 0.35])),
        pack=Material(cloth(rng), air + 2) if rng.uniform() < 0.4 else None,
        cadence=rng.uniform(0.8, 0.95),
    )


def person(rng: np.random.Generator, air: float, still: Pixels | None) -> Actor:
    body = _person_body(rng, air)
    return Actor("person", body, body.stature, 0.6, 1.4, 4.0, detail_texture(rng, still, 0.16))


@dataclass(frozen=True, slots=True)
class _Cyclist:
    rider: _Person
    frame: Material
    tyre: Material
    spokes: Material

    def figure(self, pose: Pose) -> Figure:
        rider, figure = self.rider, Figure(self.rider.air)
        turn = pose.travelled / 0.34
        for x in (-0.52, 0.52):
            self._wheel(figure, x, turn)
        crank, saddle, bar, rear, front = (
            (0, 0.3, 0),
            (-0.17, 0.92, 0),
            (0.42, 0.98, 0),
            (-0.52, 0.34, 0),
            (0.52, 0.34, 0),
        )
        for a, b in (
            (crank, saddle),
            (crank, rear),
            (saddle, rear),
            (crank, (0.38, 0.85, 0)),
            (saddle, (0.38, 0.85, 0)),
            (bar, front),
        ):
            figure.capsule(a, b, 0.025, 0.025, self.frame)
        hip, shoulder = (-0.15, 1.0, 0), (0.18, 1.47, 0)
        for side in (1, -1):
            pedal = turn * 0.5 + (0 if side > 0 else math.pi)
            foot = (0.17 * math.cos(pedal), 0.32 - 0.17 * math.sin(pedal), side * 0.12)
            knee = _bend((hip[0], hip[1], side * 0.09), foot, 0.47, 0.45)
            figure.capsule((hip[0], hip[1], side * 0.09), knee, 0.1, 0.068, rider.trousers)
            figure.capsule(knee, foot, 0.065, 0.045, rider.trousers)
            figure.capsule(
                (foot[0] - 0.05, foot[1] - 0.03, foot[2]),
                (foot[0] + 0.13, foot[1] - 0.05, foot[2]),
                0.045,
                0.035,
                rider.shoe,
            )
            elbow, hand = (0.26, 1.2, side * 0.24), (0.42, 1.02, side * 0.22)
            figure.capsule((shoulder[0], shoulder[1] - 0.05, side * 0.19), elbow, 0.058, 0.046, rider.top)
            figure.capsule(elbow, hand, 0.045, 0.036, rider.sleeve)
            figure.capsule(
                (hip[0], hip[1], side * 0.06), (shoulder[0], shoulder[1] - 0.05, side * 0.1), 0.125, 0.13, rider.top
            )
        head = (0.29, 1.68, 0.0)
        figure.capsule(shoulder, head, 0.06, 0.055, rider.skin)
        figure.ball((head[0] + 0.02, head[1] - 0.02, 0), 0.1, rider.skin)
        figure.capsule((head[0] + 0.02, head[1] + 0.07, 0), (head[0] - 0.07, head[1] + 0.04, 0), 0.095, 0.1, rider.hair)
        return figure

    def _wheel(self, figure: Figure, x: float, turn: float) -> None:
        ring = [(x + 0.33 * math.cos(i * math.pi / 6), 0.34 + 0.33 * math.sin(i * math.pi / 6), 0.0) for i in range(12)]
        for a, b in zip(ring, [*ring[1:], ring[0]], strict=True):
            figure.capsule(a, b, 0.022, 0.022, self.tyre)
        for i in range(4):
            angle = -turn + i * math.pi / 4
            dx, dy = 0.31 * math.cos(angle), 0.31 * math.sin(angle)
            figure.capsule((x - dx, 0.34 - dy, 0), (x + dx, 0.34 + dy, 0), 0.007, 0.007, self.spokes)


def _bend(a: Point, b: Point, upper: float, lower: float) -> Point:
    """The joint between two bones from ``a`` to ``b``, bent forwards (the law of cosines)."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    span = min(math.hypot(dx, dy), upper + lower - 1e-3)
    cosine = (upper**2 + span**2 - lower**2) / (2 * upper * span)
    angle = math.atan2(dy, dx) + math.acos(min(1.0, max(-1.0, cosine)))
    return a[0] + upper * math.cos(angle), a[1] + upper * math.sin(angle), (a[2] + b[2]) / 2


def cyclist(rng: np.random.Generator, air: float, still: Pixels | None) -> Actor:
    body = _Cyclist(
        rider=_person_body(rng, air),
        frame=Material(paint(rng), air + 1, 0.7),
        tyre=Material((28, 28, 30), air + 5),
        spokes=Material((150, 152, 155), air, 0.6),
    )
    return Actor("cyclist", body, 1.8, 1.75, 4.5, 1.6, detail_texture(rng, still, 0.12))
