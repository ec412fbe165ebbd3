"""API keys: the file that holds them, and the command that writes it.

The file is JSON. It holds names, limits and digests, and no key: a key is shown once, when it is made.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table

from duotrack_service.tickets import digest, new_secret

PREFIX: Final = "dtk_"  # so that whoever finds one, or scans for leaks, knows what it is
NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class KeyFileError(Exception):
    """A file of keys that cannot be read or written."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key.

    Attributes:
        name: whose it is; sessions belong to it.
        digest: SHA-256 of the key, in hexadecimal.
        created_at, expires_at: UTC.
        max_sessions, frames_per_second: limits of its own; the service's where None.
    """

    name: str
    digest: str
    created_at: datetime
    expires_at: datetime | None = None
    max_sessions: int | None = None
    frames_per_second: float | None = None

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and datetime.now(UTC) >= self.expires_at


class _Key(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=NAME)]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    max_sessions: Annotated[int, Field(ge=1)] | None = None
    frames_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: list[_Key]


def new_key() -> str:
    """A key: ``dtk_`` and 256 random bits."""
    return PREFIX + new_secret()


def read_keys(path: Path) -> list[ApiKey]:
    """The keys in a file.

    Raises:
        OSError: it cannot be read.
        KeyFileError: it is no file of keys, or two keys have one name.
    """
    try:
        keys = [ApiKey(**dict(key)) for key in _File.model_validate_json(path.read_bytes()).keys]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise KeyFileError(f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from error
    names = [key.name for key in keys]
    if twice := {name for name in names if names.count(name) > 1}:
        raise KeyFileError(f"two keys are called {min(twice)!r}")
    return keys


def write_keys(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file by one with ``keys``, readable by its owner alone. Who reads it sees the old one or the new.

    Raises:
        OSError: it cannot be written.
    """
    document = _File(keys=[_Key(**{name: getattr(key, name) for name in ApiKey.__dataclass_fields__}) for key in keys])
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(document.model_dump_json(indent=2, exclude_none=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help="Make, list and revoke API keys.")

FileOption = Annotated[
    Path,
    typer.Option("--file", envvar="DUOTRACK_KEYS_FILE", help="The file of keys; a running service reads it again."),
]
DEFAULT_FILE = Path("duotrack-keys.json")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is: letters, digits, dots and dashes.")],
    file: FileOption = DEFAULT_FILE,
    max_sessions: Annotated[int | None, typer.Option(min=1, help="Sessions at a time.")] = None,
    frames_per_second: Annotated[float | None, typer.Option(help="Frame pairs a second of all sessions.")] = None,
    days: Annotated[float | None, typer.Option(help="Days that it is valid; for good by default.")] = None,
) -> None:
    """Make a key and print it. It is shown this once and kept nowhere."""
    keys = _load(file) if file.exists() else []
    if any(key.name == name for key in keys):
        raise _failure(f"there is a key called {name!r} in {file} already: revoke it first, or take another name")
    secret, now = new_key(), datetime.now(UTC)
    try:
        expires_at = None if days is None else now + timedelta(days=days)
    except (ValueError, OverflowError) as error:
        raise _failure(f"expected --days before the year 10000, got {days}", code=2) from error
    if expires_at is not None and expires_at <= now:
        raise _failure(f"expected a positive number of --days, got {days}", code=2)
    fields = {
        "name": name,
        "digest": digest(secret),
        "created_at": now,
        "expires_at": expires_at,
        "max_sessions": max_sessions,
        "frames_per_second": frames_per_second,
    }
    try:
        key = ApiKey(**dict(_Key.model_validate(fields)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _failure(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}", code=2) from error
    _store(file, [*keys, key])
    sys.stdout.write(f"{secret}\n")
    sys.stderr.write(
        f"duotrack-serve: the key of {name!r} is in {file} as a digest; this is the only time it is shown\n"
    )


@app.command("list")
def list_keys(file: FileOption = DEFAULT_FILE) -> None:
    """Show the keys, without their secrets."""
    table = Table("name", "made", "valid until", "sessions", "frames/s")
    for key in _load(file):
        until = "for good" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}"
        table.add_row(
            key.name,
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"{until} (over)" if key.expired else until,
            str(key.max_sessions or "–"),
            f"{key.frames_per_second:g}" if key.frames_per_second else "–",
        )
    Console().print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    file: FileOption = DEFAULT_FILE,
) -> None:
    """Make a key invalid. Nothing new is let in with it at once; what it let in ends within seconds."""
    keys = _load(file)
    kept = [key for key in keys if key.name != name]
    if len(kept) == len(keys):
        raise _failure(f"there is no key called {name!r} in {file}: {', '.join(key.name for key in keys) or 'none'}")
    _store(file, kept)
    sys.stderr.write(f"duotrack-serve: the key of {name!r} is no longer valid\n")


def _load(file: Path) -> list[ApiKey]:
    try:
        return read_keys(file)
    except (OSError, KeyFileError) as error:
        raise _failure(f"cannot read the keys in {file}: {error}") from error


def _store(file: Path, keys: Sequence[ApiKey]) -> None:
    try:
        write_keys(file, keys)
    except OSError as error:
        raise _failure(f"cannot write the keys to {file}: {error}") from error


def _failure(message: str, code: int = 1) -> typer.Exit:
    sys.stderr.write(f"duotrack-serve: {message}\n")
    return typer.Exit(code)
