"""Whether what a run validates on is held out of what it trains on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from duotrack.data import images
from duotrack.data.recordings import Recording, RecordingPairs
from duotrack.data.shards import ShardPairs
from duotrack.data.sources import PairSource, SequencePairs
from duotrack.errors import SourceError
from duotrack.evaluation.sequences import AnnotatedPairs


class Footprint(NamedTuple):
    """What a sequence is known by: the folders of its frames, none in caches and shards, and its name."""

    name: str
    folders: frozenset[Path]


def require_held_out(sources: Iterable[PairSource], sequences: Iterable[AnnotatedPairs]) -> None:
    """Sequences are the same where their frames are in the same folder. Caches and shards keep only their names.

    Raises:
        SourceError: one of ``sequences`` is among the ``sources``; the message names some.
    """
    drawn = [footprint for source in sources for footprint in _of_source(source)]
    folders = {folder for footprint in drawn for folder in footprint.folders}
    names = {footprint.name for footprint in drawn if not footprint.folders}
    tracked = [footprint for sequence in sequences if (footprint := _of_sequence(sequence)) is not None]
    known = [name for name, places in tracked if places & folders or name in names]
    if known:
        some = ", ".join(known[:3]) + (", …" if len(known) > 3 else "")
        raise SourceError(
            f"{len(known)} of {len(tracked)} sequences to validate on are trained on ({some}): "
            "give sources and validation different splits, or different folds of the local data"
        )


def _of_source(source: PairSource) -> Iterator[Footprint]:
    if isinstance(source, ShardPairs):
        yield from (Footprint(name, frozenset()) for name in source.recordings)
    elif isinstance(source, RecordingPairs):
        yield from (_of_sequence(footage) or Footprint(footage.name, frozenset()) for footage in source.recordings)
    elif isinstance(source, SequencePairs):
        yield from (_of_files(sequence.name, sequence.files) for sequence in source.sequences)


def _of_sequence(sequence: object) -> Footprint | None:
    """None for what has no files, as a generated scene."""
    if isinstance(sequence, Recording):
        return _of_files(sequence.name, (*(sequence.rgb or ()), *(sequence.thermal or ())))
    if isinstance(sequence, images.Sequence):
        return _of_files(sequence.name, sequence.files)
    return None


def _of_files(name: str, files: Iterable[Path]) -> Footprint:
    return Footprint(name, frozenset(folder.resolve() for folder in {file.parent for file in files}))
