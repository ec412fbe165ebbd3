"""The file that says what a prepared folder (frame cache, shards) holds, how it was made, and whether it is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duotrack.data.whole_file import whole_file
from duotrack.errors import SourceError


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a prepared folder says about itself.

    Attributes:
        form: what the folder is, and the version of its layout.
        options: how it was made; going on with other options would mix two kinds of data.
        content: what it holds, of the form's own kind.
        complete: False from the first write until everything is there.
    """

    form: str
    options: dict[str, Any]
    content: list[Any]
    complete: bool

    def write(self, path: Path) -> None:
        """Put the manifest in place of the previous one at once.

        Raises:
            SourceError: it cannot be written.
        """
        record = {"form": self.form, "options": self.options, "complete": self.complete, "content": self.content}
        with whole_file(path) as file:
            file.write(json.dumps(record).encode())


def read_manifest(path: Path, form: str) -> Manifest | None:
    """The manifest at ``path``, None where there is none.

    Raises:
        SourceError: it cannot be read, or is of another form or version.
    """
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
        manifest = Manifest(record["form"], record["options"], record["content"], record["complete"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"cannot read {path}: {error!r}; prepare the folder again") from error
    if manifest.form != form:
        raise SourceError(f"{path} is of form {manifest.form!r}, expected {form!r}; prepare the folder again")
    return manifest


def matching_manifest(path: Path, form: str, options: dict[str, Any]) -> Manifest | None:
    """What a folder that is to be gone on with says so far, None where it is new.

    Raises:
        SourceError: it was made with other options, or cannot be read.
    """
    known = read_manifest(path, form)
    if known is not None and known.options != options:
        raise SourceError(f"{path.parent} was made with {known.options}, not with {options}; choose another folder")
    return known


def start_manifest(path: Path, form: str, options: dict[str, Any]) -> Manifest:
    """Open a folder for writing: what it holds so far, marked as incomplete.

    Raises:
        SourceError: it was made with other options, or cannot be written.
    """
    known = matching_manifest(path, form, options)
    manifest = Manifest(form, options, known.content if known is not None else [], complete=False)
    manifest.write(path)
    return manifest


def require_complete(path: Path, form: str) -> Manifest:
    """
    Raises:
        SourceError: there is no manifest, it is of another form, or the preparation was interrupted.
    """
    manifest = read_manifest(path, form)
    if manifest is None:
        raise SourceError(f"{path.parent} is not a {form.partition(' v')[0]}: {path.name} is missing")
    if not manifest.complete:
        raise SourceError(
            f"{path.parent} is not complete; run the command that prepares it again, it goes on from there"
        )
    return manifest
