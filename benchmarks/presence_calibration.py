"""How well presence tells crops with the target from crops without it, and the calibration that makes it a probability.

    python benchmarks/presence_calibration.py --data ../shared/data [--model NAME|DIR] [--write] [--plot FILE.svg]

Platt's scaling (1999) is fitted on crops of generated scenes that are in no training and no benchmark, and of the local
benchmark's training split. Crops without the target are of other places, of where the target last was, and, in drawn
scenes, of others of its kind in a frame without it (of none that is its double: that could not be told). ROC AUC and
reliability are printed for those, and for the held-out split, which has no part in the fit. With ``--write`` the
calibration goes into the folder's ``model.json``; ``--plot`` draws the reliability (needs matplotlib).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from duotrack.boxes import Box, CropWindow
from duotrack.crops import crop_pair
from duotrack.data.synthetic import Scene, SceneConfig
from duotrack.engine import Engine
from duotrack.engine.models import open_model
from duotrack.evaluation.benchmark import BenchmarkChoice, open_benchmark
from duotrack.evaluation.machine import describe_machine
from duotrack.evaluation.sequences import BenchmarkPairs, GeneratedSequence
from duotrack.frames import FramePair
from duotrack.network import Template

FIRST_SEED = 2**41  # training draws from 10**6, its validation from 500, the benchmark from 2**40
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)

Values = NDArray[np.float64]


def crops_of(sequence: BenchmarkPairs, engine: Engine, rng: np.random.Generator) -> Iterator[tuple[float, bool]]:
    """Presence in search crops of one sequence, and whether the target is in them: about as often as not.

    With the target: around a box up to half its size off. Without it: elsewhere in the frame, or where it last was in
    frames in which it is not.
    """
    spec, boxes = engine.spec, list(sequence.boxes)
    first, box = sequence.pair(0), boxes[0]
    assert box is not None
    window = CropWindow.around(box, spec.template_factor, spec.template_size)
    template = Template(
        crop_pair(first, window, None)[None], present(first), np.array([window.to_crop(box)], np.float32)
    )
    features = engine.encode(template)

    def presence(pair: FramePair, center: Iterable[float], size: Box) -> float:
        cx, cy = center
        window = spec.search_window(Box.from_center(cx, cy, size.w, size.h))
        return float(engine.search(crop_pair(pair, window, None)[None], present(pair), features).presence[0])

    for index in rng.choice(np.arange(1, len(boxes)), min(8, len(boxes) - 1), replace=False).tolist():
        pair, now = sequence.pair(index), boxes[index]
        last = next(earlier for earlier in reversed(boxes[: index + 1]) if earlier is not None)
        side = np.sqrt(last.area)
        if now is None:
            yield presence(pair, np.array(last.center) + rng.uniform(-0.5, 0.5, 2) * side, last), False
            continue
        yield presence(pair, np.array(now.center) + rng.uniform(-0.5, 0.5, 2) * side, now), True
        places = rng.uniform((0, 0), (pair.width, pair.height), (20, 2))
        reach = 0.5 * spec.search_factor_around(now) * side + 0.5 * max(now.w, now.h)
        if isinstance(sequence, Scenery):
            others = [other for other in sequence.scene.distractor_boxes(index) if _is_inside(other, pair)]
            for other in others[:1]:
                yield presence(sequence.scene.plate(index), other.center, other), False
        away = [place for place in places if np.abs(place - np.array(now.center)).max() > reach]
        if away:
            yield presence(pair, away[0], now), False


def _is_inside(box: Box, pair: FramePair) -> bool:
    return 0 <= box.center[0] < pair.width and 0 <= box.center[1] < pair.height


class Scenery(GeneratedSequence):
    """A generated scene of which also the frames without the target can be had."""

    def __init__(self, config: SceneConfig) -> None:
        super().__init__(config)
        self.scene = Scene(config)


def present(pair: FramePair) -> NDArray[np.float32]:
    return np.array([[pair.rgb is not None, pair.thermal is not None]], np.float32)


def gather(sequences: Iterable[BenchmarkPairs], engine: Engine, seed: int) -> tuple[Values, NDArray[np.bool_]]:
    """Logits of presence, and whether the target was there."""
    rng = np.random.default_rng(seed)
    found = [entry for sequence in sequences for entry in crops_of(sequence, engine, rng)]
    presence = np.clip([value for value, _ in found], 1e-6, 1 - 1e-6)
    return np.log(presence / (1 - presence)), np.array([there for _, there in found])


def fit(logits: Values, there: NDArray[np.bool_]) -> tuple[float, float]:
    """Platt's scale and bias: logistic regression on the logit, both classes of the same weight.

    By Newton's method with halved steps, on standardised logits: the loss is convex, and falls with each step.
    """
    middle, spread = logits.mean(), logits.std()
    design = np.column_stack(((logits - middle) / spread, np.ones_like(logits)))
    weights = np.where(there, 0.5 / there.mean(), 0.5 / (~there).mean()) / len(there)
    signs = np.where(there, -1.0, 1.0)

    def loss(solution: Values) -> float:
        return float(weights @ np.logaddexp(0, signs * (design @ solution)))

    solution = np.zeros(2)
    for _ in range(100):
        probability = 1 / (1 + np.exp(-design @ solution))
        gradient = design.T @ (weights * (probability - there))
        curvature = (design * (weights * probability * (1 - probability))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        while loss(solution - step) > loss(solution) and np.abs(step).max() > 1e-9:
            step /= 2
        solution = solution - step
        if np.abs(step).max() < 1e-9:
            break
    scale = float(solution[0] / spread)
    return scale, float(solution[1] - scale * middle)


def roc_auc(logits: Values, there: NDArray[np.bool_]) -> float:
    """The chance that a crop with the target has the larger presence of two."""
    order = logits.argsort().argsort() + 1
    positive = there.sum()
    return float((order[there].sum() - positive * (positive + 1) / 2) / (positive * (~there).sum()))


def describe(name: str, logits: Values, there: NDArray[np.bool_], scale: float, bias: float, below: float) -> None:
    probability = 1 / (1 + np.exp(-(scale * logits + bias)))
    alarms, missed = (probability[there] < below).mean(), (probability[~there] >= below).mean()
    print(
        f"{name}: {there.sum()} crops with the target, {(~there).sum()} without; ROC AUC {roc_auc(logits, there):.3f}"
    )
    print(
        f"  at {below:g}: {100 * alarms:.1f} % of the first called absent, {100 * missed:.1f} % of the second present"
    )
    for low, high in pairwise(BINS):
        inside = (probability >= low) & (probability <= high if high == 1 else probability < high)
        if inside.any():
            print(f"  {low:.1f} to {high:.1f}: there in {100 * there[inside].mean():5.1f} % of {inside.sum():4} crops")


def plot(path: Path, model: str, shown: dict[str, tuple[Values, NDArray[np.bool_]]], scale: float, bias: float) -> None:
    """How often the target was there by the probability that was given for it; bars are 95 % Wilson intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(4.2, 3.8), layout="constrained")
    axis.plot((0, 1), (0, 1), color="0.7", linewidth=1)
    for name, (logits, there) in shown.items():
        probability = 1 / (1 + np.exp(-(scale * logits + bias)))
        groups = [part for part in np.array_split(probability.argsort(), 10) if part.size]
        given = np.array([probability[part].mean() for part in groups])
        found, size = np.array([there[part].mean() for part in groups]), np.array([part.size for part in groups])
        middle = (found + 1.92 / size) / (1 + 3.84 / size)
        half = 1.96 * np.sqrt(found * (1 - found) / size + 0.96 / size**2) / (1 + 3.84 / size)
        bars = np.clip((found - (middle - half), middle + half - found), 0, None)
        axis.errorbar(given, found, bars, marker="o", markersize=4, linewidth=1, label=name)
    axis.set(xlabel="presence, calibrated", ylabel="share of crops with the target", title=model)
    axis.legend(loc="upper left", fontsize=8)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default=None)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    if arguments.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    engine, folder = Engine.open(arguments.model, threads=arguments.threads), open_model(arguments.model)
    scenes = [
        # Without occlusion: a target that is there but hidden belongs to neither kind.
        Scenery(SceneConfig(width=320, height=240, frames=120, seed=FIRST_SEED + index, occlusion=False, twins=False))
        for index in range(arguments.scenes)
    ]
    train, held_out = (
        list(open_benchmark(BenchmarkChoice("local", arguments.data, split)).sequences.values())
        for split in ("train", "val")
    )
    parts = [gather(scenes, engine, 0), gather(train[:: max(1, len(train) // 96)], engine, 1)]
    logits, there = (np.concatenate(values) for values in zip(*parts, strict=True))
    scale, bias = fit(logits, there)
    print("; ".join(describe_machine().values()))
    print(f"{folder.spec.name}: scale {scale:.3f}, bias {bias:.3f}")
    below = folder.spec.lost_below
    shown = {
        "generated scenes": parts[0],
        "local, training split": parts[1],
        "local, held out": gather(held_out, engine, 2),
    }
    for name, (values, labels) in shown.items():
        describe(name, values, labels, scale, bias, below)
    if arguments.plot:
        plot(arguments.plot, folder.spec.name, shown, scale, bias)
    if arguments.write:
        path = folder.directory / "model.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        record["spec"] |= {"presence_scale": round(scale, 4), "presence_bias": round(bias, 4)}
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
