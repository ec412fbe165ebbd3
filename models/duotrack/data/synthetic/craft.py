"""Boats and drones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from duotrack.data.synthetic.actor import Actor, Pose
from duotrack.data.synthetic.figure import Figure, Material
from duotrack.data.synthetic.looks import detail_texture, mix, paint
from duotrack.data.synthetic.noise import Pixels


@dataclass(frozen=True, slots=True)
class _Boat:
    air: float
    length: float
    hull: Material
    deck: Material
    house: Material
    glass: Material
    mast: Material
    engine: Material
    tall: float

    def figure(self, pose: Pose) -> Figure:
        figure, k = Figure(self.air, solid=True), self.length / 6
        heave = 0.06 * k * math.sin(1.7 * pose.time) + 0.04 * k * math.sin(2.9 * pose.time + 1)
        keel = ((-2.8, -0.8), (1.4, -0.75), (2.6, 0.0), (1.4, 0.75), (-2.8, 0.8))
        rail = ((-3.0, -1.0), (1.6, -1.0), (3.2, 0.0), (1.6, 1.0), (-3.0, 1.0))
        scaled = [[(x * k, z * k) for x, z in outline] for outline in (keel, rail)]
        figure.loft(scaled[0], scaled[1], -0.12 * k + heave, 0.85 * k + heave, [self.hull] * 5, self.deck)
        base, roof = 0.85 * k + heave, (0.85 + self.tall) * k + heave
        house = [(x * k, z * k) for x, z in ((-1.3, -0.65), (0.8, -0.65), (0.8, 0.65), (-1.3, 0.65))]
        narrow = [(x * k, z * k) for x, z in ((-1.25, -0.6), (0.45, -0.6), (0.45, 0.6), (-1.25, 0.6))]
        figure.loft(house, narrow, base, roof, [self.house, self.glass, self.house, self.house], self.house)
        low, high = base + 0.35 * self.tall * k, base + 0.8 * self.tall * k
        for z in (0.66 * k, -0.66 * k):
            figure.face(
                [(-1.1 * k, low, z), (0.55 * k, low, z), (0.45 * k, high, z), (-1.1 * k, high, z)],
                (0, 0, z),
                self.glass,
            )
        stern = [(x * k, z * k) for x, z in ((-3.25, -0.25), (-2.85, -0.25), (-2.85, 0.25), (-3.25, 0.25))]
        figure.loft(stern, stern, 0.1 * k + heave, 1.15 * k + heave, [self.engine] * 4, self.engine)
        figure.capsule((-0.4 * k, roof, 0), (-0.4 * k, roof + 1.4 * k, 0), 0.045 * k, 0.03 * k, self.mast)
        return figure


def boat(rng: np.random.Generator, air: float, still: Pixels | None) -> Actor:
    length = rng.uniform(5, 9)
    body = _Boat(
        air, length,
        hull=Material(mix(paint(rng), (235, 235, 232), rng.uniform(0, 0.6)), air + 4),
        deck=Material((196, 172, 134), air + 5),
        house=Material((232, 232, 228), air + 6),
        glass=Material((44, 56, 70), air + 3, 0.8),
        mast=Material((200, 200, 200), air + 1, 0.8),
        engine=Material((40, 42, 48), air + 26),
        tall=rng.uniform(0.7, 1.3),
    )  # fmt: skip
    return Actor("boat", body, 0.55 * length, length, 4.0, 0.5, detail_texture(rng, still, 0.06, patterns=("plain",)))


@dataclass(frozen=True, slots=True)
class _Drone:
    air: float
    shell: Material
    arm: Material
    rotor: Material
    motor: Material
    belly: Material

    def figure(self, pose: Pose) -> Figure:
        figure = Figure(self.air)
        tilt = 0.12 * min(pose.pace, 1.5) + 0.05 * math.sin(2.1 * pose.time)
        figure.capsule((-0.24, 0.02 + tilt * 0.24, 0), (0.24, 0.02 - tilt * 0.24, 0), 0.13, 0.12, self.shell)
        figure.capsule((0.12, -0.13, 0), (0.16, -0.2, 0), 0.07, 0.06, self.belly)
        for x, z in ((0.45, 0.45), (0.45, -0.45), (-0.45, 0.45), (-0.45, -0.45)):
            hub = (x, 0.1 - tilt * x, z)
            figure.capsule((x * 0.3, 0.02 - tilt * x * 0.3, z * 0.3), hub, 0.04, 0.035, self.arm)
            figure.capsule((x, hub[1] - 0.05, z), (x, hub[1] + 0.05, z), 0.055, 0.055, self.motor)
            spin = 37 * pose.time + x
            for blade in (spin, spin + math.pi / 2):
                dx, dz = 0.27 * math.cos(blade), 0.27 * math.sin(blade)
                figure.capsule(
                    (x - dx, hub[1] + 0.07, z - dz), (x + dx, hub[1] + 0.07, z + dz), 0.018, 0.018, self.rotor
                )
        for z in (0.2, -0.2):
            figure.capsule((-0.2, -0.3, z), (0.2, -0.3, z), 0.02, 0.02, self.arm)
            figure.capsule((0, -0.05, z * 0.6), (0, -0.3, z), 0.018, 0.018, self.arm)
        return figure


def drone(rng: np.random.Generator, air: float, still: Pixels | None) -> Actor:
    shade = rng.uniform(40, 220)
    body = _Drone(
        air,
        shell=Material((shade, shade, shade + 8), air + 11),
        arm=Material((52, 52, 56), air + 5),
        rotor=Material((120, 122, 126), air),
        motor=Material((60, 60, 64), air + 24),
        belly=Material((36, 36, 40), air + 14),
    )
    return Actor("drone", body, 0.6, 1.4, 3.0, 2.0, detail_texture(rng, still, 0.05), altitude=rng.uniform(1.5, 3.0))
