"""Typed reading of the fields of a decoded document, JSON or MessagePack, that came over the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from reprlib import Repr
from typing import Any, TypeGuard, TypeVar

from duotrack_client.errors import BoxError, ProtocolError
from duotrack_client.protocol.boxes import Box
from duotrack_client.protocol.closing import CloseCode

_Name = TypeVar("_Name", bound=StrEnum)

# What came is shown in part: the whole may be long, or nested deeper than ``repr`` can follow.
_EXCERPT = Repr()
_EXCERPT.maxstring = _EXCERPT.maxother = _EXCERPT.maxlong = 60
_EXCERPT.maxlevel = _EXCERPT.maxlist = _EXCERPT.maxdict = 3


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one object; each method says what was expected and what came.

    Every method raises ProtocolError (1002) where the field is missing or has a value of another kind.

    Attributes:
        path: where the object is in its message, such as ``result.box``.
        values: the decoded object.
    """

    path: str
    values: Mapping[str, Any] = field(repr=False)

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(name) is not None

    def text(self, name: str) -> str:
        """A text that can be written as UTF-8: JSON can smuggle in half a surrogate pair, which can not."""
        value = self.values.get(name)
        if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
            raise self._wrong(name, "a text", value)
        return value

    def number(self, name: str, at_least: float = -math.inf) -> float:
        """A finite number of at least ``at_least``."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number", value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number) or number < at_least:
            raise self._wrong(name, f"a finite number of at least {at_least:g}", value)
        return number

    def count(self, name: str) -> int:
        """A whole number that fits 64 bits."""
        value = self.values.get(name)
        if not _is_count(value):
            raise self._wrong(name, "a whole number from 0 to 2^64 - 1", value)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.values.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def name_in(self, name: str, names: type[_Name]) -> _Name:
        """One of the values of ``names``."""
        value = self.values.get(name)
        if not isinstance(value, str) or value not in list(names):
            raise self._wrong(name, f"one of {', '.join(names)}", value)
        return names(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of texts", value)
        return tuple(value)

    def counts(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(_is_count(item) for item in value):
            raise self._wrong(name, "a list of whole numbers", value)
        return tuple(value)

    def inner(self, name: str) -> Fields:
        """The fields of an object."""
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object", value)
        return Fields(f"{self.path}.{name}", value)

    def each(self, name: str) -> tuple[Fields, ...]:
        """The fields of each object in a list."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(name, "a list of objects", value)
        return tuple(Fields(f"{self.path}.{name}[{index}]", item) for index, item in enumerate(value))

    def box(self, name: str) -> Box:
        """An object of x, y, w and h."""
        inner = self.inner(name)
        try:
            return Box(inner.number("x"), inner.number("y"), inner.number("w"), inner.number("h"))
        except BoxError as error:
            raise _broken(f"expected a box in {inner.path}: {error}") from error

    def _wrong(self, name: str, expected: str, value: object) -> ProtocolError:
        return _broken(f"expected {expected} in {self.path}.{name}, got {excerpt(value)}")


def excerpt(value: object) -> str:
    """A short form of whatever came, safe to put into an error message."""
    return _EXCERPT.repr(value)


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def _broken(message: str) -> ProtocolError:
    return ProtocolError(message, CloseCode.PROTOCOL_ERROR)
