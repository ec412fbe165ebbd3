"""Frames on the device: those that sources keep stay there, the others come along with each batch."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from duotrack.data.augment import Window
from duotrack.data.augment_plan import Affine, inverse, reduced
from duotrack.data.images import Pixels, View

CHANNELS = 5  # R, G, B, thermal, mask


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The part of a frame that a crop reads, in the bank (from ``start``) or still on the host.

    Attributes:
        pixels, mask: (h · w) int32 with R, G, B and thermal as its bytes, and (h · w) uint8; None where in the bank.
        left, top, width, height: in the frame, in pixels.
        frame: width and height of the frame.
        view: what must not be dropped before the pixels were used: else the bank gives their room to others.
    """

    left: int
    top: int
    width: int
    height: int
    frame: tuple[int, int]
    start: int = 0
    pixels: NDArray[np.int32] | None = None
    mask: Pixels | None = None
    view: View | None = None

    @staticmethod
    def cut(view: View, left: int, top: int, width: int, height: int) -> Patch:
        """A copy of this part of ``view``; what the view lacks is zero."""
        region = np.s_[top : top + height, left : left + width]
        pixels = np.zeros((height, width, 4), np.uint8)
        if view.rgb is not None:
            pixels[..., :3] = view.rgb[region]
        if view.thermal is not None:
            pixels[..., 3] = view.thermal[region]
        mask = np.zeros(height * width, np.uint8) if view.mask is None else view.mask[region].ravel()
        return Patch(left, top, width, height, view.size, 0, pixels.view(np.int32).ravel(), mask)


class FrameBank:
    """Frames that were drawn before and that their source still holds, in one block of device memory.

    A frame is known by where its arrays lie in host memory, so that views of a mapped file count as one. It is taken in
    when it comes in a second sample, and given up when the source drops what holds it. What is composed for one
    sample is gone before it could come again, so it takes no room. Sources must not write to arrays that they have
    given out. All methods may be called from several threads.

    Args:
        capacity: of the block, in pixels; each takes 5 bytes. 0 keeps nothing on the device.
    """

    def __init__(self, device: torch.device, capacity: int) -> None:
        self.device = device
        self.pixels = torch.zeros(capacity, dtype=torch.int32, device=device)
        self.masks = torch.zeros(capacity, dtype=torch.uint8, device=device)
        self._used = 0
        self._resident: dict[_Place, tuple[_Holders, Patch]] = {}
        self._seen: dict[_Place, _Holders] = {}
        self._freed: dict[int, list[int]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many frames are on the device."""
        return len(self._resident)

    def patch(self, view: View, to_crops: Sequence[Affine], size: int, factor: int) -> Patch:
        """Where a crop finds its pixels: in the bank if the frame is there, else in a copy of what it reads.

        Args:
            to_crops: from frame to crop, of colour and of thermal.
            factor: by which the frame will be averaged down.
        """
        with self._lock:
            found = self._resident.get(_place(view))
            if found is not None and _holds(found[0], view):
                return replace(found[1], view=view)
        return _read_part(view, to_crops, size, factor)

    def note(self, views: Sequence[View]) -> None:
        """Take in those of a sample's frames that came in an earlier sample, as long as there is room."""
        with self._lock:
            for place, view in {_place(view): view for view in views}.items():
                holders = self._seen.get(place)
                if holders is None or not _holds(holders, view):
                    self._forget(place)
                    self._seen[place] = self._watch(place, view)
                elif place not in self._resident:
                    self._take_in(place, view)

    def _take_in(self, place: _Place, view: View) -> None:
        width, height = view.size
        start = self._allocate(width * height)
        if start is None:
            return
        whole = Patch.cut(view, 0, 0, width, height)
        self._write(whole, start)
        self._resident[place] = self._seen[place], replace(whole, start=start, pixels=None, mask=None)

    def _write(self, whole: Patch, start: int) -> None:
        assert whole.pixels is not None
        assert whole.mask is not None
        end = start + whole.width * whole.height
        self.pixels[start:end] = torch.from_numpy(whole.pixels).to(self.device)
        self.masks[start:end] = torch.from_numpy(whole.mask).to(self.device)

    def _allocate(self, count: int) -> int | None:
        if self._freed.get(count):
            return self._freed[count].pop()
        if self._used + count > len(self.pixels):
            return None
        self._used += count
        return self._used - count

    def _watch(self, place: _Place, view: View) -> _Holders:
        def forget(_: object) -> None:
            if (
                self._seen.get(place) is holders
            ):  # else the first of them that went was enough, others may lie there now
                self._forget(place)

        holders = tuple(None if owner is None else weakref.ref(owner, forget) for owner in _owners(view))
        return holders

    def _forget(self, place: _Place) -> None:
        # The garbage collector comes here at any moment and in any thread, perhaps one that holds the lock: so without
        # it, by single operations that are atomic in themselves.
        self._seen.pop(place, None)
        gone = self._resident.pop(place, None)
        if gone is not None:
            patch = gone[1]
            self._freed.setdefault(patch.width * patch.height, []).append(patch.start)


_Holders = tuple["weakref.ref[NDArray[Any]] | None", ...]
_Place = tuple[tuple[int, tuple[int, ...], tuple[int, ...]] | None, ...]


def _place(view: View) -> _Place:
    """Where the view's images lie in memory, and in what form."""
    return tuple(
        None if image is None else (image.__array_interface__["data"][0], image.shape, image.strides)
        for image in (view.rgb, view.thermal, view.mask)
    )


def _owners(view: View) -> list[NDArray[Any] | None]:
    """The arrays that own the memory of a view's images: while they live, nothing else can lie there."""
    owners: list[NDArray[Any] | None] = [view.rgb, view.thermal, view.mask]
    for number, owner in enumerate(owners):
        while owner is not None and isinstance(owner.base, np.ndarray):
            owner = owner.base
        owners[number] = owner
    return owners


def _holds(holders: _Holders, view: View) -> bool:
    """Whether the same arrays still own the images, and not what came to their addresses later."""
    return all(
        owner is (None if holder is None else holder()) for owner, holder in zip(_owners(view), holders, strict=True)
    )


def _read_part(view: View, to_crops: Sequence[Affine], size: int, factor: int) -> Patch:
    windows = [Window.under(to_crop, view.size, size, factor) for to_crop in to_crops]
    left, top = min(window.left for window in windows), min(window.top for window in windows)
    right = max(window.left + window.width for window in windows)
    bottom = max(window.top + window.height for window in windows)
    return Patch.cut(view, *(value * factor for value in (left, top, right - left, bottom - top)))


@dataclass(frozen=True, slots=True, eq=False)
class PatchBatch:
    """Patches of B samples on the device, ready to be sampled: those in the bank and those that came along.

    A patch that its crop shrinks was averaged down; coordinates are those of its frame, averaged as a whole.
    """

    bank: FrameBank
    pixels: Tensor
    masks: Tensor
    geometry: NDArray[np.int64]  # (B, 8): in the bank or not, start, left, top, width, height, frame's width and height
    factors: list[int]

    @staticmethod
    def gather(bank: FrameBank, patches: Sequence[Patch], factors: Sequence[int]) -> PatchBatch:
        """Send what is not in the bank, in one transfer, and average down what is to be."""
        host = [patch for patch in patches if patch.pixels is not None]
        pixels = _joined([patch.pixels for patch in host if patch.pixels is not None], np.int32).to(bank.device)
        masks = _joined([patch.mask for patch in host if patch.mask is not None], np.uint8).to(bank.device)
        extra_pixels, extra_masks, rows = [pixels], [masks], []
        sent, end = 1, len(pixels)
        for patch, factor in zip(patches, factors, strict=True):
            resident, start, count = patch.pixels is None, patch.start, patch.width * patch.height
            if not resident:
                start, sent = sent, sent + count
            place = np.array((patch.left, patch.top, patch.width, patch.height, *patch.frame)) // factor
            if factor > 1:
                block = slice(start, start + count)
                whole = (bank.pixels, bank.masks) if resident else (pixels, masks)
                extra_pixels.append(_average_pixels(whole[0][block].view(patch.height, patch.width), factor))
                extra_masks.append(_average_mask(whole[1][block].view(patch.height, patch.width), factor))
                resident, start, end = False, end, end + len(extra_masks[-1])
            rows.append((resident, start, *place.tolist()))
        return PatchBatch(bank, torch.cat(extra_pixels), torch.cat(extra_masks), np.array(rows), list(factors))

    def sample(self, numbers: Sequence[int], to_crops: Sequence[Affine], size: int) -> tuple[Tensor, Tensor]:
        """Crops of the samples ``numbers``: bilinear, zero beyond the frame.

        Returns:
            (n, 5, size, size) float32 of whole grey levels, the last channel the mask; and (n, size, size) bool, where
            the centres of the crop's pixels lie inside the frame.
        """
        device, rows = self.bank.device, self.geometry[list(numbers)]
        matrices = np.stack(
            [inverse(reduced(to_crop, self.factors[number])) for number, to_crop in zip(numbers, to_crops, strict=True)]
        )
        (ax, bx, cx), (ay, by, cy) = torch.from_numpy(matrices).float().to(device).permute(1, 2, 0)[..., None, None]
        steps = torch.arange(size, dtype=torch.float32, device=device)
        x, y = ax * steps + (bx * steps[:, None] + cx), ay * steps + (by * steps[:, None] + cy)
        frame = torch.from_numpy(rows[:, 6:]).to(device).T[..., None, None]
        inside = (x >= -0.5) & (x < frame[0] - 0.5) & (y >= -0.5) & (y < frame[1] - 0.5)
        crops = torch.empty(len(rows), size, size, CHANNELS, device=device)
        for resident, pixels, masks in ((True, self.bank.pixels, self.bank.masks), (False, self.pixels, self.masks)):
            chosen = np.flatnonzero(rows[:, 0] == resident)
            if chosen.size:
                place = torch.from_numpy(rows[chosen, 1:]).to(device).T[..., None, None]
                index = torch.from_numpy(chosen).to(device)
                crops[index] = _bilinear(pixels, masks, place, x[index], y[index])
        return crops.round_().permute(0, 3, 1, 2).contiguous(), inside


def _joined(parts: list[NDArray[np.int32]] | list[Pixels], kind: type) -> Tensor:
    # A first zero, for crops beside their frame: they read nothing, but need an address.
    return torch.from_numpy(np.concatenate([np.zeros(1, kind), *parts]))


def _average_pixels(pixels: Tensor, factor: int) -> Tensor:
    channels = pixels.contiguous().view(torch.uint8).view(*pixels.shape, 4).permute(2, 0, 1)
    averaged = _average(channels, factor).permute(1, 2, 0)
    # Of a single pixel, contiguous() gives the strides as they are, and these do not divide into four bytes.
    return averaged.clone(memory_format=torch.contiguous_format).view(torch.int32).flatten()


def _average_mask(mask: Tensor, factor: int) -> Tensor:
    return _average(mask[None], factor).flatten()


def _average(channels: Tensor, factor: int) -> Tensor:
    """(C, h, w) uint8 over ``factor`` × ``factor`` pixels; what does not fill a block is left out."""
    if min(channels.shape[1:]) < factor:
        return channels[:, :0, :0]
    return F.avg_pool2d(channels[None].float(), factor)[0].round_().to(torch.uint8)


def _bilinear(pixels: Tensor, masks: Tensor, place: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(n, S, S, 5): four neighbours by their weights; ``place`` (7, n, 1, 1) is a row of ``geometry`` from start on."""
    start, left, top, width, height, frame_width, frame_height = place
    column, row = x.floor(), y.floor()
    right, below = x - column, y - row
    crops = torch.zeros(*x.shape, CHANNELS, device=x.device)
    for over, horizontal in ((0, 1 - right), (1, right)):
        for under, vertical in ((0, 1 - below), (1, below)):
            i, j = column.long() + over, row.long() + under
            within = (i >= 0) & (i < frame_width) & (j >= 0) & (j < frame_height)
            # Neighbours beyond the frame have no weight, but need an address.
            i, j = (i - left).clamp_(min=0).minimum(width - 1), (j - top).clamp_(min=0).minimum(height - 1)
            address = torch.where(within, start + j * width + i, 0)
            weight = (horizontal * vertical * within)[..., None]
            crops[..., :4] += weight * pixels[address].view(torch.uint8).view(*x.shape, 4)
            crops[..., 4:] += weight * masks[address][..., None]
    return crops
