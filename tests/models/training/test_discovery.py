"""Finding objects: the cut on made-up features, the outline on made-up pictures, and files that are kept."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from duotrack.errors import ModelError, SourceError
from duotrack.nets.vit import Block
from duotrack.training.discovery import PatchFeatures, discover, discover_all, outlined, parts

WIDTH, PATCH = 64, 14


def features(rows: int, columns: int, inside: NDArray[np.bool_], noise: float) -> NDArray[np.float32]:
    """Two directions, one for the patches of an object and one for the others, and something that all share."""
    rng = np.random.default_rng(0)
    shared, own, other = rng.normal(size=(3, 48))
    made = 5 * shared + np.where(inside[..., None], own, other) + noise * rng.normal(size=(rows, columns, 48))
    return made.astype(np.float32)


@pytest.mark.parametrize("noise", [0.1, 0.8])
def test_the_cut_separates_what_is_alike(noise: float) -> None:
    inside = np.zeros((24, 32), bool)
    inside[8:18, 10:22] = True
    found = parts(features(24, 32, inside, noise))[0]
    assert (found == inside).mean() > 0.99


def test_single_odd_patches_are_not_the_object() -> None:
    """Large vision transformers have a few patches unlike all others; a hard threshold would cut those off."""
    inside = np.zeros((24, 32), bool)
    inside[8:18, 10:22] = True
    odd = features(24, 32, inside, 0.3)
    odd[0, 0] = odd[3, 29] = 40 * np.random.default_rng(5).normal(size=48)
    assert (parts(odd)[0] == inside).mean() > 0.98


def test_the_object_is_the_group_away_from_the_edges() -> None:
    """Even where it is the larger one."""
    inside = np.zeros((20, 20), bool)
    inside[2:18, 2:18] = True
    assert (parts(features(20, 20, inside, 0.2))[0] == inside).mean() > 0.98


def test_an_object_is_found_where_something_else_parts_the_picture_better() -> None:
    """Sky and ground are the two halves into which a picture falls first."""
    rng = np.random.default_rng(2)
    inside = np.zeros((24, 32), bool)
    inside[14:19, 12:18] = True
    own, ground, sky = rng.normal(size=(3, 48))
    made = np.where(np.arange(24)[:, None, None] < 11, sky, ground).repeat(32, 1)
    made[inside] = own
    made += 0.2 * rng.normal(size=made.shape)
    found = parts(made.astype(np.float32))
    assert (found[0] == inside).mean() > 0.98
    assert not any(mask[0].any() and mask[:, 0].any() and mask[:, -1].any() for mask in found)  # the sky is none


def test_each_of_a_flock_is_an_object() -> None:
    inside = np.zeros((24, 32), bool)
    inside[4:9, 4:10] = inside[12:18, 20:27] = True
    found = parts(features(24, 32, inside, 0.2))
    assert len(found) >= 2
    assert not (found[0] & found[1]).any()
    assert ((found[0] | found[1]) == inside).mean() > 0.98


def scene() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rng = np.random.default_rng(1)
    truth = np.zeros((216, 288), np.uint8)
    cv2.ellipse(truth, (150, 100), (60, 35), 20, 0, 360, 1, -1)
    picture = np.where(truth[..., None] > 0, (200, 60, 40), (60, 120, 70)) + rng.normal(0, 12, (216, 288, 3))
    return np.clip(picture, 0, 255).astype(np.uint8), truth > 0


def test_the_outline_follows_the_pixels() -> None:
    """From patches of 9 pixels, which overlap by 0.86, to within a pixel of the object's edge."""
    picture, truth = scene()
    patches = cv2.resize(truth.astype(np.float32), (32, 24), interpolation=cv2.INTER_AREA) > 0.5
    rough = cv2.resize(patches.astype(np.uint8), (288, 216), interpolation=cv2.INTER_NEAREST) > 0
    found = outlined(picture, patches)

    def overlap(mask: NDArray[np.bool_]) -> float:
        return float((mask & truth).sum() / (mask | truth).sum())

    assert overlap(found) > 0.96 > overlap(rough)


@pytest.mark.parametrize("value", [False, True])
def test_nothing_and_everything_have_no_outline(value: bool) -> None:
    picture, _ = scene()
    assert (outlined(picture, np.full((24, 32), value)) == value).all()


class Found(PatchFeatures):
    """In place of a network: features that tell the parts of a picture by their colour."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        small = cv2.resize(picture, (32, 24), interpolation=cv2.INTER_AREA).astype(np.float32)
        return small - small.mean()


def test_objects_are_numbered_and_walls_are_none() -> None:
    picture = np.full((240, 320, 3), (60, 120, 70), np.uint8)
    cv2.circle(picture, (90, 120), 40, (200, 60, 40), -1)
    cv2.circle(picture, (220, 100), 25, (200, 60, 40), -1)
    picture[200:] = (200, 60, 40)  # along the whole lower edge
    picture[5:9, 300:304] = (200, 60, 40)  # a speck
    labels = discover(picture, Found())
    assert labels.max() == 2
    assert {labels[120, 90], labels[100, 220]} == {1, 2}
    assert labels[220, 160] == labels[7, 302] == 0
    assert (labels == labels[120, 90]).sum() == pytest.approx(np.pi * 40**2, rel=0.05)


def test_an_outline_that_strays_is_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.full((240, 320, 3), (60, 120, 70), np.uint8)
    cv2.circle(picture, (90, 120), 40, (200, 60, 40), -1)
    assert discover(picture, Found()).max() == 1
    beside = np.zeros((240, 320), bool)
    beside[80:160, 100:200] = True
    monkeypatch.setattr("duotrack.training.discovery.outlined", lambda *_: beside)
    assert discover(picture, Found()).max() == 0


def vit(path: Path) -> Path:
    """A ViT of two blocks with random weights, in timm's names."""
    torch.manual_seed(0)
    tensors = {
        "patch_embed.proj.weight": torch.randn(WIDTH, 3, PATCH, PATCH) * 0.02,
        "patch_embed.proj.bias": torch.zeros(WIDTH),
        "pos_embed": torch.randn(1, 1 + 16, WIDTH) * 0.02,
    }
    for index in range(2):
        for name, tensor in Block(WIDTH, 1).state_dict().items():
            tensors[f"blocks.{index}.{name}"] = tensor
    save_file(tensors, path)
    return path


def test_features_have_the_shape_of_the_picture(tmp_path: Path) -> None:
    found = PatchFeatures.read(vit(tmp_path / "vit.safetensors"))
    picture, _ = scene()
    assert found(picture).shape == (24, 32, WIDTH)
    assert found(np.ascontiguousarray(picture.transpose(1, 0, 2))).shape == (32, 24, WIDTH)
    assert np.allclose(found(picture).mean(-1), 0, atol=1e-5)  # normalised


def test_files_that_are_there_are_kept(tmp_path: Path) -> None:
    weights, (picture, _) = vit(tmp_path / "vit.safetensors"), scene()
    (tmp_path / "data" / "a").mkdir(parents=True)
    names = [Path("a/1.jpg"), Path("a/2.jpg")]
    for name in names:
        cv2.imwrite(str(tmp_path / "data" / name), picture[..., ::-1])
    told: list[tuple[str, int]] = []
    output = tmp_path / "found"
    total = discover_all(tmp_path / "data", names, weights, output, lambda name, count: told.append((name, count)))
    assert [name for name, _ in told] == ["a/1.jpg", "a/2.jpg"]
    assert total == sum(count for _, count in told)
    labels = cv2.imread(str(output / "a" / "1.png"), cv2.IMREAD_GRAYSCALE)
    assert labels is not None
    assert labels.shape == picture.shape[:2]
    assert sorted(path.name for path in output.rglob("*") if path.is_file()) == ["1.png", "2.png"]
    kept = np.full(labels.shape, 7, np.uint8)
    cv2.imwrite(str(output / "a" / "1.png"), kept)
    assert discover_all(tmp_path / "data", names, weights, output, lambda *_: None) == 7 + told[1][1]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    weights = vit(tmp_path / "vit.safetensors")
    with pytest.raises(SourceError, match=r"cannot read image .*missing\.jpg"):
        discover_all(tmp_path, [Path("missing.jpg")], weights, tmp_path / "found", lambda *_: None)
    with pytest.raises(ModelError, match=r"none\.safetensors"):
        discover_all(tmp_path, [], tmp_path / "none.safetensors", tmp_path / "found", lambda *_: None)
