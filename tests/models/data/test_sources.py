"""Sources of training pairs: what they draw, how gaps grow, that labels say what is in the pixels, and negatives."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray

from duotrack.boxes import Box
from duotrack.data.figures import Figures, gather_figures
from duotrack.data.images import Sequence, ThermalFrame, View, validation_split
from duotrack.data.regions import random_box
from duotrack.data.sources import (
    EndlessScenes,
    MovingStills,
    ObjectPairs,
    OutlinedStill,
    PairSource,
    PastedPairs,
    ScenePairs,
    SequencePairs,
    StillPairs,
    ThermalPairs,
    draw_absent,
    local_sources,
    render_scenes,
)
from duotrack.data.sources.local import SHARES, outlined_pictures
from duotrack.data.sources.stills import crowded
from duotrack.errors import SourceError

RED = (230, 20, 20)


def texture(seed: int, size: tuple[int, int] = (240, 320)) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 60, 140, cv2.NORM_MINMAX), np.uint8)


def sequence(name: str, frames: int = 8, *, masks: bool = True, colour: tuple[int, int, int] = RED) -> Sequence:
    """A coloured block that moves to the right over a texture; frame 2 does not show it."""
    images, boxes, drawn = [], list[Box | None](), []
    for index in range(frames):
        image, mask = texture(index), np.zeros((240, 320), np.uint8)
        if index != 2:
            left = 40 + 4 * index
            image[60:110, left : left + 40] = colour
            mask[60:110, left : left + 40] = 255
        images.append(image)
        drawn.append(mask)
        boxes.append(None if index == 2 else Box(40 + 4 * index, 60, 40, 50))
    return Sequence(name, images, boxes, drawn if masks else None)


def objects(colour: tuple[int, int, int] = RED) -> Figures:
    return gather_figures([], [(np.full((40, 60, 3), colour, np.uint8), np.full((40, 60), 255, np.uint8))])


def red(view: View) -> NDArray[np.bool_]:
    assert view.rgb is not None
    return (view.rgb[..., 0] > 150) & (view.rgb[..., 1] < 60) & (view.rgb[..., 2] < 60)


def outlined(seed: int, colour: tuple[int, int, int] = RED, *, thermal: bool = False) -> OutlinedStill:
    """A texture with an ellipse of one colour in it, 90 wide and 60 high."""
    image, labels = texture(seed), np.zeros((240, 320), np.uint8)
    cv2.ellipse(labels, (150, 120), (45, 30), 0, 0, 360, 1, -1)
    image[labels == 1] = colour
    return OutlinedStill(image, texture(seed + 1)[..., 0].copy() if thermal else None, labels)


SOURCES: dict[str, Callable[[], PairSource]] = {
    "objects": lambda: ObjectPairs([outlined(70), outlined(72, (10, 10, 240), thermal=True)]),
    "sequences": lambda: SequencePairs([sequence("a", 30), sequence("b", 20, colour=(10, 10, 240))]),
    "stills": lambda: StillPairs([(texture(50), None), (texture(51), texture(52)[..., 0].copy())]),
    "pasted": lambda: PastedPairs(objects(), [texture(55), texture(56)]),
    "moving": lambda: MovingStills([(texture(57), texture(58)[..., 0].copy())], objects()),
    "thermal": lambda: ThermalPairs(
        [ThermalFrame(texture(60)[..., 0].copy(), [Box(50, 60, 20, 40), Box(9, 9, 30, 30)])]
    ),
    "scenes": lambda: EndlessScenes(seed=7, count=20, live=2),
}


def same(first: View, second: View) -> bool:
    images = zip((first.rgb, first.thermal), (second.rgb, second.thermal), strict=True)
    return first.box == second.box and all(
        (one is None) == (other is None) and (one is None or np.array_equal(one, other)) for one, other in images
    )


@pytest.mark.parametrize("name", SOURCES)
def test_a_draw_is_a_function_of_the_generator_and_of_progress(name: str) -> None:
    """Also after other draws, which fill caches; and different generators draw different pairs."""
    source, other = SOURCES[name](), SOURCES[name]()
    for seed in range(3):
        other.draw(np.random.default_rng(100 + seed), 0.2)
    drawn = []
    for seed in (2, 0, 1):
        pair = source.draw(np.random.default_rng(seed), 0.6)
        again = other.draw(np.random.default_rng(seed), 0.6)
        assert all(same(one, two) for one, two in zip(pair, again, strict=True))
        drawn.append(pair)
    assert not all(same(drawn[0][0], pair[0]) for pair in drawn)


@pytest.mark.parametrize("name", SOURCES)
def test_views_are_consistent(name: str) -> None:
    source, rng = SOURCES[name](), np.random.default_rng(0)
    for _ in range(12):
        for view in source.draw(rng):
            width, height = view.size
            for image in (view.rgb, view.thermal, view.mask):
                assert image is None or (image.shape[:2] == (height, width) and image.dtype == np.uint8)
            assert 0 <= view.box.center[0] <= width
            assert 0 <= view.box.center[1] <= height
            assert view.scene is not None


@pytest.mark.parametrize("name", SOURCES)
def test_sources_travel_to_worker_processes(name: str) -> None:
    source = SOURCES[name]()
    source.draw(np.random.default_rng(0))
    copy = pickle.loads(pickle.dumps(source))
    for one, two in zip(copy.draw(np.random.default_rng(1)), source.draw(np.random.default_rng(1)), strict=True):
        assert same(one, two)


def gaps(progress: float, rng: Generator) -> set[int]:
    long = sequence("long", frames=60)
    numbers = {id(frame): index for index, frame in enumerate(long.frames)}
    source, found = SequencePairs([long], largest_gap=20, crowded=0), set[int]()
    for _ in range(400):
        views = source.draw(rng, progress)
        first, second = (numbers[id(view.rgb)] for view in views)
        found.add(second - first)
        for index, view in zip((first, second), views, strict=True):
            assert index != 2  # where the target is absent
            assert view.box == long.boxes[index]
            assert view.mask is not None
    return found


@pytest.mark.parametrize(("progress", "largest"), [(0.0, 5), (0.1, 8), (0.25, 12), (0.5, 20), (1.0, 20)])
def test_gaps_grow_over_the_first_half_and_go_both_ways(progress: float, largest: int) -> None:
    """5 at the start, ``largest_gap`` from the middle on, linear between: all gaps up to it occur, and none above."""
    found = gaps(progress, np.random.default_rng(0))
    assert (min(found), max(found)) == (-largest, largest)
    assert len(found) > 0.85 * (2 * largest + 1)


def test_moving_stills_and_scenes_use_the_gap_too() -> None:
    """By how far a target's middle moves: much less at the start of a training than in its second half."""
    for name in ("moving", "scenes"):
        source, moved = SOURCES[name](), []
        for progress in (0.0, 1.0):
            rng = np.random.default_rng(3)
            pairs = [source.draw(rng, progress) for _ in range(15)]
            moved.append(np.median([np.abs(np.subtract(a.box.center, b.box.center)).max() for a, b in pairs]))
        assert moved[0] < 0.6 * moved[1], name


def test_random_boxes_lie_in_the_picture_and_vary() -> None:
    rng = np.random.default_rng(0)
    boxes = [random_box(320, 200, rng) for _ in range(500)]
    for box in boxes:
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.w <= 320 + 1e-9
        assert box.y + box.h <= 200 + 1e-9
    sides = np.sqrt([box.area for box in boxes]) / 200
    assert sides.min() < 0.15
    assert sides.max() > 0.5
    shapes = np.log([box.w / box.h for box in boxes])
    assert shapes.std() > 0.4


def test_crowded_search_views_have_their_share_and_show_the_true_target() -> None:
    source = SequencePairs([sequence("a", 30), sequence("b", 30, colour=(10, 10, 240))], crowded=0.4)
    rng, extra = np.random.default_rng(0), []
    originals = {id(frame) for each in source.sequences for frame in each.frames}
    for _ in range(200):
        template, search = source.draw(rng)
        assert id(template.rgb) in originals
        extra.append(id(search.rgb) not in originals)
        assert search.mask is not None
        assert search.rgb is not None
        colour = RED if search.scene == "a" else (10, 10, 240)
        assert (search.rgb[search.mask > 0] == colour).all()
    assert np.mean(extra) == pytest.approx(0.4, abs=0.14)


def test_sequences_without_masks_lend_nothing() -> None:
    bare = SequencePairs([sequence("a", masks=False)], crowded=1.0)
    frames = {id(frame) for frame in bare.sequences[0].frames}
    assert all(id(bare.draw(np.random.default_rng(seed))[1].rgb) in frames for seed in range(10))


def test_a_pasted_target_is_in_its_box() -> None:
    """A red object among none of its colour: the red pixels' box is the view's."""
    figures = objects()
    source = PastedPairs(Figures([], [figures.still[0]]), [np.zeros((100, 100, 3), np.uint8)], rivals=0.0)
    rng, alone = np.random.default_rng(0), 0
    for _ in range(60):
        view, _ = source.draw(rng)
        assert view.mask is not None
        assert view.size == (320, 320)
        x, y, w, h = cv2.boundingRect((view.mask > 127).astype(np.uint8))
        assert view.box == Box(x, y, w, h)
        assert red(view)[view.mask > 250].all()
        count, _ = cv2.connectedComponents(red(view).astype(np.uint8))
        if count == 2:  # the background, and this object alone or with others that it touches
            found = Box(*cv2.boundingRect(red(view).astype(np.uint8)))
            assert found.iou(view.box) > 0.85 or found.area > view.box.area
            alone += 1
    assert alone > 10


def test_rivals_stand_near_the_target_in_their_share() -> None:
    """Twins keep to the target's side: apart from what is pasted anywhere, they come within two and a half sizes."""
    rng = np.random.default_rng(0)
    near = {}
    for rivals in (0.0, 1.0):
        source, found = PastedPairs(objects(), [np.zeros((90, 90, 3), np.uint8)], rivals=rivals), []
        for _ in range(60):
            _, view = source.draw(rng)
            assert view.rgb is not None
            assert view.mask is not None
            (cx, cy), reach = view.box.center, 1.6 * view.box.area**0.5
            around = view.rgb[max(int(cy - reach), 0) : int(cy + reach), max(int(cx - reach), 0) : int(cx + reach)].max(
                -1
            )
            target = view.mask[max(int(cy - reach), 0) : int(cy + reach), max(int(cx - reach), 0) : int(cx + reach)]
            found.append(((around > 25) & (target < 5)).sum() > 0.25 * view.box.area)
        near[rivals] = np.mean(found)
    assert near[1.0] > 0.85
    assert near[0.0] < 0.5


def test_objects_with_neighbours_are_preferred() -> None:
    """One lone object against two that stand together: 1 : 3 : 3 by the weights."""
    boxes = [Box(10, 10, 10, 10), Box(200, 100, 10, 10), Box(225, 100, 10, 10)]
    assert crowded(boxes).tolist() == [0, 1, 1]
    assert crowded([Box(0, 0, 100, 100), Box(390, 0, 5, 5)]).tolist() == [1, 0]  # in units of its own size
    frames = [ThermalFrame(texture(0)[..., 0].copy(), []), ThermalFrame(texture(0)[..., 0].copy(), boxes)]
    source, rng = ThermalPairs(frames), np.random.default_rng(0)
    drawn = [source.draw(rng)[0].box for _ in range(1400)]
    shares = [drawn.count(box) / 1400 for box in boxes]
    np.testing.assert_allclose(shares, [1 / 7, 3 / 7, 3 / 7], atol=0.05)


def red_share(view: View) -> float:
    """The share of the middle of a view's box that is red."""
    (cx, cy), (w, h) = view.box.center, (view.box.w / 4, view.box.h / 4)
    return float(red(view)[int(cy - h) : int(cy + h) + 1, int(cx - w) : int(cx + w) + 1].mean())


@pytest.mark.parametrize("name", ["sequences", "pasted", "moving"])
def test_negatives_lack_the_target(name: str) -> None:
    """Where it would be is no red, which it is in the template; a red distractor may stand there now and then."""
    figures, still = objects(), (texture(57), texture(58)[..., 0].copy())
    source: PairSource = {
        "sequences": SequencePairs([sequence("a", 30)]),
        "pasted": PastedPairs(figures, [texture(55)], rivals=0.0),
        "moving": MovingStills([still], figures, pasted=1.0),
    }[name]
    rng = np.random.default_rng(0)
    pairs = [pair for _ in range(40) if (pair := draw_absent(source, rng)) is not None]
    assert len(pairs) > 30
    templates, searches = (np.array([red_share(pair[index]) for pair in pairs]) for index in (0, 1))
    positives = np.array([red_share(source.draw(rng)[1]) for _ in range(40)])
    assert np.mean(templates > 0.9) > 0.85
    assert np.mean(positives > 0.9) > 0.85
    assert np.mean(searches < 0.02) > (0.95 if name == "sequences" else 0.75)
    assert all(search.mask is None for _, search in pairs)


def test_negatives_of_scenes_differ_from_positives_at_the_target_alone() -> None:
    """Some are of the target's place, some of a distractor."""
    source, impostors = EndlessScenes(seed=7, count=4, live=4), 0
    for seed in range(12):
        template, search = source.draw(np.random.default_rng(seed), 0.3)
        same_template, absent = source.draw_absent(np.random.default_rng(seed), 0.3) or (None, None)
        assert same_template is not None
        assert absent is not None
        assert same(template, same_template)
        if absent.box != search.box:
            scene = next(scene for scene in source._scenes.values() if scene.config.seed == search.scene)
            assert any(absent.box in scene.distractor_boxes(number) for number in range(len(scene)))
            impostors += 1
        assert absent.rgb is not None
        assert search.rgb is not None
        x, y, w, h = (int(value) for value in search.box.xywh)
        changed = np.abs(absent.rgb.astype(int) - search.rgb).max(-1) > 12
        assert absent.thermal is not None
        assert search.thermal is not None
        warmth = np.abs(absent.thermal.astype(int) - search.thermal) > 12
        assert (changed | warmth)[y : y + h, x : x + w].mean() > 0.1  # at night it may show in thermal alone
        changed[max(y - 4, 0) : y + h + 4, max(x - 4, 0) : x + w + 4] = False
        assert changed.mean() < 0.02  # its shadow
    assert 2 <= impostors <= 10


def test_a_source_that_has_no_negatives_of_its_own_has_its_target_covered() -> None:
    thermal = texture(60)[..., 0].copy()
    thermal[60:100, 50:70] = 250
    source = ThermalPairs([ThermalFrame(thermal, [Box(50, 60, 20, 40)])])
    template, search = draw_absent(source, np.random.default_rng(0)) or (None, None)
    assert template is not None
    assert search is not None
    assert search.thermal is not None
    assert template.thermal is thermal
    assert (search.thermal > 200).sum() < 20


def test_a_random_box_of_a_still_is_never_absent() -> None:
    assert draw_absent(StillPairs([(texture(0), None)]), np.random.default_rng(0)) is None


def test_endless_scenes_are_many_cached_and_bounded() -> None:
    """Which scenes are live moves with progress; two generators agree on a scene whatever was in memory."""
    source, rng = EndlessScenes(seed=7, count=12, live=3), np.random.default_rng(0)
    seen: set[int] = set()
    for progress in (0.0, 0.5, 1.0):
        for _ in range(6):
            source.draw(rng, progress)
            assert len(source.cached) <= 3
        first = int(progress * 9)
        assert set(source.cached) <= set(range(first, first + 3))
        seen |= set(source.cached)
    assert len(seen) >= 7
    before = source.cached
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.cached, source.cached) == ([], before)


def test_endless_scenes_use_stills_as_textures_in_every_second_scene() -> None:
    plain, textured = (
        EndlessScenes(seed=7, count=2, live=2, backgrounds=stills) for stills in ((), [texture(0, (300, 300))])
    )
    differing = {False: 0, True: 0}
    for seed in range(8):
        one, other = (source.draw(np.random.default_rng(seed))[0] for source in (plain, textured))
        differing[(int(str(one.scene)) - 7) % 2 == 1] += not same(one, other)
        if (int(str(one.scene)) - 7) % 2 == 0:
            assert same(one, other)
    assert differing[True] > 0


def test_rendered_scenes_have_views_of_one_target() -> None:
    scenes = list(render_scenes(1, seed=5, backgrounds=[texture(0)]))
    assert len(scenes) == 1
    assert 1 <= len(scenes[0]) <= 20
    for view in scenes[0]:
        assert view.size == (320, 240)
        assert view.rgb is not None
        assert view.thermal is not None
        assert view.thermal.dtype == np.uint8
    for view in ScenePairs(scenes).draw(np.random.default_rng(0)):
        assert any(view is other for other in scenes[0])


def test_an_outlined_object_is_bent_and_its_box_is_that_of_what_it_became() -> None:
    source, rng = ObjectPairs([outlined(70)], bent=1.0, crowded=0.0), np.random.default_rng(0)
    overlaps = []
    for _ in range(20):
        template, search = source.draw(rng)
        for view in (template, search):
            rows, columns = np.nonzero(red(view))
            found = Box(columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            assert view.box.iou(found) > 0.9
            assert view.mask is not None
            assert (red(view) & (view.mask > 127)).sum() > 0.9 * red(view).sum()
        moved = Box(0, 0, *search.box.xywh[2:])
        overlaps.append(moved.iou(Box(0, 0, *template.box.xywh[2:])))
    assert min(overlaps) < 0.9  # of the shapes: some have changed
    assert np.mean(overlaps) > 0.6


def test_stills_with_objects_are_shown_without_some_of_what_is_around_them() -> None:
    source, rng = ObjectPairs([outlined(70)], bent=0.0, crowded=0.0), np.random.default_rng(0)
    views = [view for _ in range(30) for view in source.draw(rng)]
    sizes = {view.size for view in views}
    assert len(sizes) > 20
    for view in views:
        assert red(view).sum() == red(views[0]).sum()  # the object itself stays whole
    assert max(width for width, _ in sizes) > 280


def test_without_its_target_an_outlined_object_is_another_one() -> None:
    """The blue one, which half of the time is red then; never a view of the target's own still."""
    source, rng = ObjectPairs([outlined(70), outlined(72, (10, 10, 240))]), np.random.default_rng(0)
    recolours = []
    for _ in range(60):
        pair = source.draw_absent(rng)
        if pair is None:
            continue
        template, search = pair
        assert template.scene != search.scene
        if template.scene == id(source.stills[0].rgb):
            recolours.append(red(search).sum() > 1000)
    assert 0.2 < np.mean(recolours) < 0.8
    assert ObjectPairs([outlined(70)]).draw_absent(rng) is None


def test_an_impostor_stands_where_the_target_would() -> None:
    """The box of a pasted negative is that of the missing target: look for what is red in its middle."""
    figures = gather_figures([], [(np.full((40, 60, 3), RED, np.uint8), np.full((40, 60), 255, np.uint8))])
    source, rng = PastedPairs(figures, [np.zeros((90, 90, 3), np.uint8)], rivals=1.0), np.random.default_rng(0)
    in_place = []
    for _ in range(60):
        pair = source.draw_absent(rng)
        assert pair is not None
        cx, cy = (int(value) for value in pair[1].box.center)
        if 4 <= cx < 316 and 4 <= cy < 316:
            in_place.append(red(pair[1])[cy - 3 : cy + 4, cx - 3 : cx + 4].mean() > 0.9)
    assert 0.35 < np.mean(in_place) < 0.85


def test_what_stands_beside_an_outlined_object_is_like_it_or_another() -> None:
    """The rival of a red object is red, red in another tint, or the blue object of the other still."""
    source, rng = (
        ObjectPairs([outlined(70), outlined(72, (10, 10, 240))], bent=0.0, crowded=1.0),
        np.random.default_rng(1),
    )
    crowded_views, blue = 0, 0
    for _ in range(60):
        template, search = source.draw(rng)
        assert template.mask is not None
        if red(template).sum() < 100:
            continue
        beside = search.rgb.copy()
        beside[search.mask > 0] = 0
        plain = beside.max(2).astype(int) - beside.min(2) > 120
        crowded_views += plain.sum() > 300
        blue += ((beside[..., 2] > 180) & (beside[..., 0] < 60)).sum() > 300
    assert crowded_views > 15
    assert 0 < blue < crowded_views


def test_cutouts_are_those_that_the_edge_does_not_cut() -> None:
    still = outlined(70)
    still.labels[200:, :60] = 2
    cutouts = still.cutouts()
    assert len(cutouts) == 1
    assert cutouts[0][1].sum() == 255 * (still.labels == 1).sum()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ObjectPairs([OutlinedStill(texture(0), None, np.zeros((240, 320), np.uint8))]),
            "none of 1 stills has one outlined",
        ),
        (lambda: SequencePairs([]), "no sequences to draw pairs from: expected at least one"),
        (
            lambda: SequencePairs([Sequence("dark", [texture(0)], [None])]),
            "sequence dark never shows its target: no frame of it has a box",
        ),
        (lambda: StillPairs([]), "no stills to draw pairs from"),
        (lambda: ThermalPairs([]), "none of 0 thermal frames has a box"),
        (lambda: ThermalPairs([ThermalFrame(texture(0)[..., 0], [])]), "none of 1 thermal frames has a box"),
        (lambda: PastedPairs(objects(), []), "no backgrounds to paste objects onto"),
        (lambda: MovingStills([], objects()), "no stills to move"),
        (lambda: ScenePairs([]), r"expected scenes of at least one view each, got \[\]"),
        (lambda: ScenePairs([[]]), r"expected scenes of at least one view each, got \[0\]"),
        (lambda: EndlessScenes(seed=0, count=0), "expected at least one scene, .* got count=0, live=48"),
    ],
)
def test_empty_sources_are_refused(make: Callable[[], PairSource], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        make()


def test_local_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "rgb-sequences").mkdir()
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(SourceError, match=rf"{root.name} has no training data: expected some of rgb-sequences"):
            local_sources(root, scenes=5, seed=0)


def write(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def local_data(root: Path) -> None:
    """A local data folder, each part of which has one item of the validation split and one that is not in it."""
    held_out = {name: names[0] for name, names in validation_split().items()}
    for name in ("kept", held_out["rgb-sequences"]):
        for index in range(5):
            write(root / "rgb-sequences" / name / "visible" / f"{index:04}.jpg", texture(index))
            mask = np.zeros((240, 320), np.uint8)
            mask[50:100, 60:120] = 255
            write(root / "rgb-sequences" / name / "mask" / f"{index:04}.png", mask)
        (root / "rgb-sequences" / name / "groundtruth.txt").write_text("60,50,60,50\n" * 5)
    for name in ("llvip/9999", held_out["rgbt-pairs"]):
        folder, number = name.split("/")
        for modality in ("visible", "infrared"):
            write(root / "rgbt-pairs" / folder / modality / f"{number}.jpg", texture(9))
    for name in ("run999", held_out["thermal-frames"]):
        write(root / "thermal-frames" / name / "infrared" / "1.jpg", texture(3)[..., 0])
        (root / "thermal-frames" / name / "boxes.csv").write_text("frame,class,x,y,w,h\n1,Car,50,60,20,30\n")
    write(root / "rgb-stills" / "imagenet" / "a.jpg", texture(4))
    write(root / "rgb-stills" / "bsds" / "b.jpg", texture(5))
    labels = np.zeros((240, 320), np.uint8)
    labels[20:60, 30:90] = 1
    write(root / "rgb-stills" / "bsds" / "b.png", labels)


def test_local_sources_leave_out_what_is_held_out(tmp_path: Path) -> None:
    local_data(tmp_path)
    sources, stills = local_sources(tmp_path, scenes=5, seed=3)
    assert len(stills) == 2
    parts = {name: source for name, (source, _) in sources.items()}
    assert [each.name for each in parts["sequences"].sequences] == ["kept"]  # type: ignore[attr-defined]
    assert len(parts["rgbt"].stills) == len(parts["moving"].stills) == 1  # type: ignore[attr-defined]
    assert len(parts["thermal"].frames) == 1  # type: ignore[attr-defined]
    figures = parts["moving"].figures  # type: ignore[attr-defined]
    assert ([figure.scene for figure in figures.moving], len(figures.still)) == (["kept"], 1)
    assert "objects" not in sources
    for source in parts.values():
        source.draw(np.random.default_rng(0), 0.5)
    assert "scenes" not in local_sources(tmp_path, scenes=0, seed=3)[0]


def test_sources_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    """And what nobody asks for is not read."""
    local_data(tmp_path)
    shutil.rmtree(tmp_path / "rgbt-pairs")
    (tmp_path / "rgbt-pairs").mkdir()
    (tmp_path / "thermal-frames" / "run999" / "boxes.csv").unlink()
    with pytest.raises(SourceError, match=r"cannot read .*boxes\.csv"):
        local_sources(tmp_path, scenes=5, seed=3)
    sources, _ = local_sources(tmp_path, scenes=5, seed=3, without=["thermal"])
    assert sources.keys() == {"sequences", "pasted", "stills", "scenes"}
    shutil.rmtree(tmp_path / "thermal-frames")
    assert local_sources(tmp_path, scenes=5, seed=3)[0].keys() == sources.keys()
    for name in ("rgb-stills", "rgb-sequences/kept/mask"):
        shutil.rmtree(tmp_path / name)
    sources, stills = local_sources(tmp_path, scenes=0, seed=3)
    assert (sources.keys(), stills) == ({"sequences"}, [])
    sources["sequences"][0].draw(np.random.default_rng(0), 0.5)


def test_objects_of_stills_are_pasted_and_drawn_where_they_were(tmp_path: Path) -> None:
    local_data(tmp_path)
    names = outlined_pictures(tmp_path)
    held_out = validation_split()["rgbt-pairs"][0].split("/")
    assert sorted(name.as_posix() for name in names) == [
        "rgb-stills/bsds/b.jpg",
        "rgb-stills/imagenet/a.jpg",
        "rgbt-pairs/llvip/visible/9999.jpg",
    ]
    assert f"rgbt-pairs/{held_out[0]}/visible/{held_out[1]}.jpg" not in names
    with pytest.raises(SourceError, match=r"imagenet/a\.png is missing: run `duotrack discover|bsds/b\.png is missing"):
        local_sources(tmp_path, scenes=0, seed=3, objects=tmp_path / "found")
    for name in names:
        write(tmp_path / "found" / name.with_suffix(".png"), outlined(70).labels)
    sources, _ = local_sources(tmp_path, scenes=0, seed=3, objects=tmp_path / "found")
    objects_ = sources["objects"][0]
    assert isinstance(objects_, ObjectPairs)
    assert [still.thermal is not None for still in objects_.stills] == [False, False, True]
    figures = sources["moving"][0].figures  # type: ignore[attr-defined]
    assert len(figures.still) == 3
    write(tmp_path / "found" / names[0].with_suffix(".png"), np.zeros((20, 30), np.uint8))
    with pytest.raises(SourceError, match=r"is 30x20, its picture 320x240"):
        local_sources(tmp_path, scenes=0, seed=3, objects=tmp_path / "found")


def test_sources_can_have_other_shares(tmp_path: Path) -> None:
    local_data(tmp_path)
    sources, _ = local_sources(tmp_path, scenes=5, seed=3, shares={"scenes": 0.5, "stills": 0.25})
    shares = {name: share for name, (_, share) in sources.items()}
    assert shares == {name: SHARES[name] for name in shares} | {"scenes": 0.5, "stills": 0.25}


def test_sources_can_be_left_out(tmp_path: Path) -> None:
    """With the sequences go their cut-outs: nothing of them is seen."""
    local_data(tmp_path)
    sources, _ = local_sources(tmp_path, scenes=5, seed=3, without=["sequences", "scenes"])
    assert sources.keys() == {"pasted", "moving", "thermal", "rgbt", "stills"}
    assert sources["pasted"][0].figures.moving == []  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match="unknown source 'scene': expected some of scenes, objects"):
        local_sources(tmp_path, scenes=0, seed=3, shares={"scene": 0.5})
    with pytest.raises(SourceError, match="unknown source 'sequence': expected some of scenes, objects"):
        local_sources(tmp_path, scenes=0, seed=3, without=["sequence"])
    with pytest.raises(SourceError, match="no source is left"):
        local_sources(tmp_path, scenes=0, seed=3, without=SHARES)
