"""The commands of the training package: train, distill, discover, narrow, average, prepare, shard, import, export.

Most need torch, which is imported when they run: ``duotrack track`` works without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from duotrack.data.readers import open_recordings
from duotrack.data.recordings import Recording, notes_of
from duotrack.engine import Engine
from duotrack.errors import ConfigError
from duotrack.terminal import failure, progress_bar, reported_errors

TRAIN_EXTRA = "this command needs torch: pip install 'duotrack[train]'"

app = typer.Typer()

ConfigArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")]
RunFolderOption = Annotated[Path, typer.Option(help="Folder of the run; an unfinished run in it is resumed.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key, as optimizer.new_lr=3e-4. May be repeated.")
]


SetArgument = Annotated[str, typer.Argument(metavar="SET", help="lasher, rgbt234, gtot, … (docs/datasets.md).")]
RootArgument = Annotated[Path, typer.Argument(help="The folder that the set was unpacked to.")]
SplitOption = Annotated[str | None, typer.Option(help="One of the set's splits; all of it by default.")]


@app.command()
def train(config: ConfigArgument, output: RunFolderOption, overrides: SetOption = None) -> None:
    """Train a teacher or a student. Under torchrun, on as many processes as it starts.

    Writes checkpoints as it goes, and MODEL.safetensors at the end.
    """
    _run_training(config, output, overrides or [])


@app.command()
def distill(
    config: ConfigArgument,
    output: RunFolderOption,
    teacher: Annotated[Path | None, typer.Option(help="The teacher's weights, in place of the config's.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Compute the teacher's outputs once, into this folder: for small machines.")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Train a student that learns from a teacher. As `train`, with a config that has a distillation part."""
    given = {"distillation.teacher": teacher, "distillation.cache": cache}
    changes = [f"{key}={json.dumps(str(path))}" for key, path in given.items() if path is not None]
    _run_training(config, output, [*(overrides or []), *changes], distilling=True)


def _run_training(name: str, output: Path, overrides: list[str], *, distilling: bool = False) -> None:
    try:
        from duotrack.training.config import load_config
        from duotrack.training.run import run_training
    except ModuleNotFoundError as error:
        raise failure(TRAIN_EXTRA) from error
    console = Console(stderr=True)
    with reported_errors():
        config = load_config(name, overrides)
        if distilling and config.distillation is None:
            raise ConfigError(f"{name} has no distillation part: use `duotrack train`, or give --teacher")
        if distilling and config.distillation and not config.distillation.weights.switched_on():
            raise ConfigError(
                f"{name}: no loss is switched on in distillation.weights: nothing would be learnt from it"
            )
        outcome = run_training(config, output, console)
        if outcome.weights is None:
            console.print(f"stopped after step {outcome.step}; the same command goes on from there", highlight=False)
            raise typer.Exit(130)
        if int(os.environ.get("RANK", "0")) == 0:
            console.print(f"wrote {outcome.weights}", highlight=False, soft_wrap=True)


@app.command()
def discover(
    root: Annotated[Path, typer.Argument(help="The local data folder (docs/training.md).")],
    weights: Annotated[Path, typer.Option(help="A pretrained ViT, as a DINOv2 ViT-S.")],
    output: Annotated[Path, typer.Option(help="Folder for the label maps; those that are there are kept.")],
) -> None:
    """Outline the objects of the stills, which nobody labelled, to train on them (docs/training.md)."""
    try:
        from duotrack.data.sources.local import outlined_pictures
        from duotrack.training.discovery import discover_all
    except ModuleNotFoundError as error:
        raise failure(TRAIN_EXTRA) from error
    console = Console(stderr=True)
    with reported_errors(), progress_bar(console) as progress:
        names = outlined_pictures(root)
        task = progress.add_task("outlining", total=len(names), state="")
        total = discover_all(root, names, weights, output, lambda name, _: progress.update(task, advance=1, state=name))
    console.print(f"outlined {total} objects in {len(names)} pictures", highlight=False, soft_wrap=True)


@app.command()
def average(
    sources: Annotated[list[Path], typer.Argument(help="Weights (.safetensors) of runs that left the same start.")],
    output: Annotated[Path, typer.Option(help="Weights file to write.")],
    start: Annotated[
        str | None, typer.Option(help="A run's config: what it starts from counts as one more (RUN/config.json).")
    ] = None,
) -> None:
    """Average the weights of several runs: often better than each of them, at no cost (a model soup)."""
    try:
        from duotrack.nets.models import save_model
        from duotrack.training.averaging import averaged
        from duotrack.training.config import load_config
    except ModuleNotFoundError as error:
        raise failure(TRAIN_EXTRA) from error
    with reported_errors():
        mean, name = averaged(sources, None if start is None else load_config(start))
        save_model(mean, output, name)
        Console(stderr=True).print(f"wrote {output}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def narrow(
    config: ConfigArgument,
    source: Annotated[
        Path, typer.Argument(help="A wider student: weights (.safetensors), model folder or shipped name.")
    ],
    output: Annotated[Path, typer.Option(help="Weights file to write: the start of a training.")],
    samples: Annotated[int, typer.Option(min=1, help="Training samples to fit the narrow layers on.")] = 224,
    overrides: SetOption = None,
) -> None:
    """Make a config's student from a wider one of its depth, without training: it computes nearly the same.

    The samples are the config's own. Train on from the output with low rates (docs/training.md).
    """
    try:
        from duotrack.nets.models import save_model
        from duotrack.training.config import load_config
        from duotrack.training.narrow import narrowed
    except ModuleNotFoundError as error:
        raise failure(TRAIN_EXTRA) from error
    with reported_errors():
        chosen = load_config(config, overrides or [])
        save_model(narrowed(chosen, source, samples), output, chosen.model.name)
        Console(stderr=True).print(f"wrote {output}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def prepare(
    kind: SetArgument,
    root: RootArgument,
    output: Annotated[Path, typer.Option(help="Folder of the cache; an unfinished one in it is completed.")],
    split: SplitOption = None,
    max_side: Annotated[int | None, typer.Option(min=16, help="Shrink larger frames to this many pixels.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Keep each n-th frame with a visible target.")] = 1,
) -> None:
    """Decode a data set once, into files that training maps into memory (docs/datasets.md)."""
    from duotrack.data.frame_cache import build_frame_cache

    console = Console(stderr=True)
    with _opened_set(kind, root, split, console) as (recordings, report):
        kept = build_frame_cache(recordings, output, max_side=max_side, every=every, report=report).kept
    line = f"wrote {len(recordings) - kept} recordings to {output}, kept {kept}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def shard(
    kind: SetArgument,
    root: RootArgument,
    output: Annotated[Path, typer.Option(help="Folder of the shards; unfinished work in it is completed.")],
    split: SplitOption = None,
    max_side: Annotated[int, typer.Option(min=16, help="Shrink larger frames to this many pixels.")] = 480,
    every: Annotated[int, typer.Option(min=1, help="Keep each n-th frame with a visible target.")] = 1,
) -> None:
    """Write a data set as tar files of short clips, for clusters (docs/datasets.md)."""
    try:
        from duotrack.data.shards import ShardPlan, write_shards
    except ModuleNotFoundError as error:
        raise failure(TRAIN_EXTRA) from error
    console = Console(stderr=True)
    with _opened_set(kind, root, split, console) as (recordings, report):
        written, kept = write_shards(recordings, output, ShardPlan(every=every, max_side=max_side), report)
    line = f"wrote {written} shards of {len(recordings)} recordings to {output}, kept {kept}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _opened_set(
    kind: str, root: Path, split: str | None, console: Console
) -> Iterator[tuple[list[Recording], Callable[[int, int, str], None]]]:
    """The recordings of a set, and a report of progress for what is made of them."""
    with reported_errors(), progress_bar(console) as progress:
        recordings = open_recordings(kind, root, split)
        for note in notes_of(recordings):
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        task = progress.add_task("writing", total=None, state="")

        def report(done: int, total: int, name: str) -> None:
            progress.update(task, completed=done, total=total, state=name)

        yield recordings, report


@app.command()
def export(
    source: Annotated[str, typer.Argument(help="Trained weights (.safetensors), a model folder, or a shipped name.")],
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    name: Annotated[str | None, typer.Option(help="The model's name; by default the source's.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8 (docs/export.md).")] = "fp16",
    target: Annotated[str, typer.Option(help="onnx, or tensorrt (plans for this machine's GPU).")] = "onnx",
    calibrate: Annotated[Path | None, typer.Option(help="Folder of training images, for int8.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Crops of them to measure ranges on.")] = 256,
) -> None:
    """Export a network as a model folder, and prove it on the provider that would run here."""
    try:
        from duotrack.export.source import PRECISIONS, TARGETS, ExportOptions, export_from
    except ModuleNotFoundError as error:
        raise failure(TRAIN_EXTRA) from error
    if precision not in PRECISIONS:
        raise typer.BadParameter(
            f"expected one of {', '.join(PRECISIONS)}, got {precision!r}", param_hint="--precision"
        )
    if target not in TARGETS:
        raise typer.BadParameter(f"expected one of {', '.join(TARGETS)}, got {target!r}", param_hint="--target")
    console = Console(stderr=True)
    with reported_errors():
        options = ExportOptions(name, PRECISIONS[precision], TARGETS[target], calibrate, samples)
        export_from(source, output, options)
        line = f"wrote {output}; {Engine.open(output)!r} agrees with the recorded run"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A public checkpoint (.pth.tar, .pth, .pt, .bin, .safetensors).")],
    architecture: Annotated[str, typer.Option(help="mplt (gives a teacher) or ostrack (gives a student).")],
    output: Annotated[Path, typer.Option(help="Weights file to write (safetensors).")],
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads; by default width / 64.")] = None,
    name: Annotated[str | None, typer.Option(help="Name to keep with the weights; by default the output's.")] = None,
    check: Annotated[Path | None, typer.Option(help="Recorded inputs and outputs (.npz) to compare with.")] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Largest difference that --check accepts.")] = 1e-4,
) -> None:
    """Turn a public MPLT or OSTrack checkpoint into a DuoTrack network, without running anything in the file.

    With --check, prints the largest difference of each output as JSON, and writes nothing where one is too large.
    """
    try:
        from duotrack.nets.models import save_model
        from duotrack.nets.parity import differences_from
        from duotrack.nets.public_checkpoint import import_checkpoint
    except ModuleNotFoundError as error:
        raise failure(TRAIN_EXTRA) from error
    with reported_errors():
        model = import_checkpoint(file, architecture, heads=heads)
        if check is not None:
            differences = differences_from(model, check)
            typer.echo(json.dumps(differences))
            if max(differences.values()) > tolerance:
                raise failure(f"{file} differs from {check} by more than {tolerance:g}; nothing was written")
        save_model(model, output, name or output.stem)
        Console(stderr=True).print(f"wrote {output}", highlight=False, markup=False, soft_wrap=True)
