"""Figures built of capsules and flat faces in metres, and their drawing into a small patch of the frame.

Model axes: x forward, y up, z to the left; the ground is y = 0. Ground axes: X right, Z away from the camera.
The drawing is orthographic: objects are small against their distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from duotrack.data.synthetic.noise import Pixels

Point: TypeAlias = tuple[float, float, float]
Colour: TypeAlias = tuple[float, float, float]

CELSIUS_PER_CODE = 0.5
COLDEST = -30.0
"""Temperatures inside a patch are bytes of half a degree from here; 0 is kept for what is not drawn."""

_ARC = np.linspace(0, np.pi, 7)
_SUN = np.array([-0.45, 0.75, -0.48])  # X right, Y up, Z away: light from the upper left, behind the camera


@dataclass(frozen=True, slots=True)
class Material:
    """A surface: its colour in daylight (0 to 255), its temperature in °C, and its emissivity.

    ``lit`` surfaces (lamps, windows with a light behind) keep their colour in the dark.
    """

    colour: Colour
    celsius: float
    emissivity: float = 0.95

    def apparent(self, air: float) -> float:
        """What a radiometer reads, in °C: what is not emitted is the cold sky, reflected."""
        return self.emissivity * self.celsius + (1 - self.emissivity) * (air - 25)


@dataclass(slots=True)
class Figure:
    """The primitives of one object in one pose, collected in the order in which they are added.

    ``solid`` figures (vehicles) are drawn in that order, without the faces turned away; the others (limbs) from
    the farthest to the nearest.
    """

    air: float
    solid: bool = False
    _capsules: list[tuple[float, ...]] = field(default_factory=list)
    _faces: list[tuple[Sequence[Point], Point | None]] = field(default_factory=list)
    _order: list[tuple[bool, int, Material]] = field(default_factory=list)

    def capsule(self, a: Point, b: Point, ra: float, rb: float, material: Material) -> None:
        """A limb from ``a`` to ``b``, of radius ``ra`` and ``rb`` at its ends."""
        self._order.append((True, len(self._capsules), material))
        self._capsules.append((*a, *b, ra, rb))

    def ball(self, centre: Point, radius: float, material: Material) -> None:
        self.capsule(centre, centre, radius, radius, material)

    def face(self, corners: Sequence[Point], normal: Point | None, material: Material) -> None:
        """A convex flat polygon; with a ``normal`` it is seen from that side only."""
        self._order.append((False, len(self._faces), material))
        self._faces.append((corners, normal))

    def loft(
        self, lower: Sequence[tuple[float, float]], upper: Sequence[tuple[float, float]], y0: float, y1: float,
        sides: Sequence[Material], top: Material,
    ) -> None:  # fmt: skip
        """Walls between two outlines (x, z), counter-clockwise from above, at heights y0 and y1, and a lid."""
        height = y1 - y0
        for i, material in zip(range(len(lower)), sides, strict=True):
            j = (i + 1) % len(lower)
            (ax, az), (bx, bz), (cx, cz), (dx, dz) = lower[i], lower[j], upper[j], upper[i]
            edge_x, edge_z, lean_x, lean_z = bx - ax, bz - az, dx - ax, dz - az
            normal = (height * edge_z, lean_z * edge_x - lean_x * edge_z, -height * edge_x)
            self.face([(ax, y0, az), (bx, y0, bz), (cx, y1, cz), (dx, y1, dz)], normal, material)
        self.face([(x, y1, z) for x, z in upper], (0, 1, 0), top)

    def prism(
        self, profile: Sequence[tuple[float, float]], half_width: float, side: Material, edges: Sequence[Material]
    ) -> None:
        """A side view (x, y), counter-clockwise, extruded from z = -half_width to +half_width."""
        for i, material in zip(range(len(profile)), edges, strict=True):
            (ax, ay), (bx, by) = profile[i], profile[(i + 1) % len(profile)]
            w = half_width
            self.face([(ax, ay, w), (bx, by, w), (bx, by, -w), (ax, ay, -w)], (by - ay, ax - bx, 0), material)
        for z in (half_width, -half_width):
            self.face([(x, y, z) for x, y in profile], (0, 0, z), side)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a figure is seen: its foot in frame pixels, pixels per metre, and its angles in radians.

    Attributes:
        heading: direction of the model's x axis on the ground, from X towards Z.
        pitch: how far the camera looks down, 0 for a side view and π/2 from above.
        roll: rotation in the image, clockwise.
        lift: height of the model's origin over the ground, in metres.
    """

    x: float
    y: float
    scale: float
    heading: float
    pitch: float
    roll: float = 0.0
    lift: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A drawn object with its top left corner at frame pixel (x, y), which may lie outside the frame.

    Attributes:
        surface: (h, w, 4) uint8: R, G, B and the temperature code, each multiplied by the coverage.
        alpha: (h, w) uint8 coverage, 255 where the object fills the pixel.
    """

    x: int
    y: int
    surface: Pixels
    alpha: Pixels

    @property
    def silhouette(self) -> NDArray[np.bool_]:
        """(h, w): the pixels of which the object fills at least half."""
        return self.alpha >= 128

    def clip(self, width: int, height: int) -> Patch | None:
        """The part inside the frame; None where there is none."""
        rows = slice(max(0, -self.y), min(self.alpha.shape[0], height - self.y))
        columns = slice(max(0, -self.x), min(self.alpha.shape[1], width - self.x))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        return Patch(
            self.x + columns.start, self.y + rows.start, self.surface[rows, columns], self.alpha[rows, columns]
        )


def heat_code(celsius: float) -> int:
    return int(min(max(round((celsius - COLDEST) / CELSIUS_PER_CODE), 1), 255))


def draw(figure: Figure, placement: Placement, detail: Pixels | None = None, reach: float = 1.0) -> Patch | None:
    """Draw a figure, antialiased. None where it would be thinner than a pixel or larger than any frame.

    ``detail`` (h, w, 3) uint8, 128 for no change, is laid over it, ``reach`` metres to each side of its origin.
    """
    outlines, keys, shades = _project(figure, placement)
    everything = np.concatenate(outlines)
    left, top = (int(v) for v in np.floor(everything.min(axis=0)))
    right, bottom = (int(v) + 1 for v in np.ceil(everything.max(axis=0)))
    width, height = right - left, bottom - top
    if not 1 <= width <= 4096 or not 1 <= height <= 4096:
        return None
    oversampling = 4 if max(width, height) < 64 else 2
    canvas = np.zeros((height * oversampling, width * oversampling), np.uint8)
    fixed = [np.rint((outline - (left, top)) * (16 * oversampling)).astype(np.int32) for outline in outlines]
    for key in keys:
        cv2.fillConvexPoly(canvas, fixed[key], key + 1, cv2.LINE_8, 4)

    packed: Pixels = shades[canvas].view(np.uint8).reshape(*canvas.shape, 4)
    drawn = np.where(canvas > 0, np.uint8(255), np.uint8(0))
    size = (width, height)
    surface: Pixels = np.asarray(cv2.resize(packed, size, interpolation=cv2.INTER_AREA), np.uint8)
    alpha: Pixels = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8)
    if detail is not None:
        _texture(surface, detail, placement, (left, top), reach)
    return Patch(left, top, surface, alpha)


def shadow(figure: Figure, placement: Placement, sun: tuple[float, float]) -> tuple[int, int, Pixels] | None:
    """The figure's shadow on the ground: left, top and (h, w) uint8 coverage.

    ``sun`` is how far, in metres towards X and Z, the shadow of one metre of height falls.
    """
    outlines, _, _ = _project(figure, placement, sun)
    everything = np.concatenate(outlines)
    left, top = (int(v) - 2 for v in np.floor(everything.min(axis=0)))
    right, bottom = (int(v) + 3 for v in np.ceil(everything.max(axis=0)))
    if right - left > 2048 or bottom - top > 2048:
        return None
    mask = np.zeros((bottom - top, right - left), np.uint8)
    for outline in outlines:
        cv2.fillConvexPoly(mask, np.rint((outline - (left, top)) * 16).astype(np.int32), 255, cv2.LINE_8, 4)
    return left, top, np.asarray(cv2.blur(mask, (3, 3)), np.uint8)


def _project(
    figure: Figure, placement: Placement, sun: tuple[float, float] | None = None
) -> tuple[list[NDArray[np.float64]], list[int], NDArray[np.uint32]]:
    """Outlines in frame pixels, the order to draw them in, and their packed colours (index 0 is nothing).

    A capsule gives two outlines: its shaded rim, and a lighter core shifted towards the light.
    """
    turn = _turn(placement.heading)
    outlines: list[NDArray[np.float64]] = []
    depths: list[float] = []
    shades: list[int] = [0]
    visible: list[int] = []
    capsules = _capsule_outlines(figure, placement, turn, sun)
    eye = np.array([0.0, math.sin(placement.pitch), -math.cos(placement.pitch)])
    for is_capsule, index, material in figure._order:
        heat = heat_code(material.apparent(figure.air))
        if is_capsule:
            rims, cores, distance = capsules
            for outline, shade in ((rims[index], 0.78), (cores[index], 1.04)):
                visible.append(len(outlines))
                outlines.append(outline)
                depths.append(float(distance[index]))
                shades.append(_pack(material.colour, shade, heat))
            continue
        corners, normal = figure._faces[index]
        ground = np.asarray(corners, np.float64) @ turn
        shade = 1.0
        if normal is not None:
            facing = np.asarray(normal, np.float64) @ turn
            facing /= math.sqrt(float(facing @ facing)) or 1.0
            shade = 0.62 + 0.42 * max(0.0, float(facing @ _SUN))
        if normal is None or sun is not None or float(facing @ eye) > 0:
            visible.append(len(outlines))
        outlines.append(_screen(ground, placement, sun))
        depths.append(float((ground @ -eye).mean()))
        shades.append(_pack(material.colour, shade, heat))
    if not figure.solid:
        visible.sort(key=lambda i: -depths[i])
    return outlines, visible, np.asarray(shades, np.dtype("<u4"))


def _capsule_outlines(
    figure: Figure, placement: Placement, turn: NDArray[np.float64], sun: tuple[float, float] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rims (n, 14, 2), cores (n, 14, 2) and distances (n,) of all capsules."""
    if not figure._capsules:
        return np.empty((0, 14, 2)), np.empty((0, 14, 2)), np.empty(0)
    data = np.asarray(figure._capsules)
    ground = data[:, :6].reshape(-1, 3) @ turn
    ends = _screen(ground, placement, sun).reshape(-1, 2, 2)
    radii = data[:, 6:] * placement.scale
    along = ends[:, 1] - ends[:, 0]
    angle = np.arctan2(along[:, 1], along[:, 0])
    arcs = np.stack([angle[:, None] + np.pi / 2 + _ARC, angle[:, None] - np.pi / 2 + _ARC], axis=1)
    circle = np.stack([np.cos(arcs), np.sin(arcs)], axis=-1)  # (n, end, arc, xy)
    reach = radii[:, :, None, None] * circle
    light = radii[:, :, None, None] * np.array([-0.2, -0.2])
    rims = (ends[:, :, None] + reach).reshape(-1, 14, 2)
    cores = (ends[:, :, None] + 0.62 * reach + light).reshape(-1, 14, 2)
    eye = np.array([0.0, -math.sin(placement.pitch), math.cos(placement.pitch)])
    distance = (ground @ eye).reshape(-1, 2).mean(axis=1)
    return rims, cores, distance


def _screen(ground: NDArray[np.float64], placement: Placement, sun: tuple[float, float] | None) -> NDArray[np.float64]:
    """Frame pixels (n, 2) of points (n, 3) given along X, up and Z from the foot; with ``sun``, of their shadows."""
    right, up, away = ground[:, 0], ground[:, 1] + placement.lift, ground[:, 2]
    if sun is not None:
        right, up, away = right + sun[0] * up, 0 * up, away + sun[1] * up
    down = -(up * math.cos(placement.pitch) + away * math.sin(placement.pitch))
    c, s = placement.scale * math.cos(placement.roll), placement.scale * math.sin(placement.roll)
    return np.stack([placement.x + c * right - s * down, placement.y + s * right + c * down], axis=1)


def _turn(heading: float) -> NDArray[np.float64]:
    """Model axes to ground axes, for row vectors."""
    c, s = math.cos(heading), math.sin(heading)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _pack(colour: Colour, shade: float, heat: int) -> int:
    r, g, b = (min(int(value * shade), 255) for value in colour)
    return r | g << 8 | b << 16 | heat << 24


def _texture(surface: Pixels, detail: Pixels, placement: Placement, corner: tuple[int, int], reach: float) -> None:
    """Multiply the colours of ``surface`` by ``detail``, which turns with the figure and mirrors with its heading."""
    height, width = surface.shape[:2]
    half = detail.shape[0] / 2
    k = half / (reach * placement.scale)
    c, s = k * math.cos(placement.roll), k * math.sin(placement.roll)
    mirror = -1 if math.cos(placement.heading) < 0 else 1
    x, y = corner[0] - placement.x, corner[1] - placement.y
    to_detail = np.array(
        [
            [mirror * c, mirror * s, half + mirror * (c * x + s * y)],
            [-s, c, 1.5 * half + (c * y - s * x)],
        ]
    )
    laid = cv2.warpAffine(
        detail, to_detail, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    )
    surface[..., :3] = cv2.multiply(np.ascontiguousarray(surface[..., :3]), laid, scale=1 / 128)
