from dataclasses import dataclass

import numpy as np
import pytest

from duotrack_client import Box, BoxError


@dataclass
class OtherBox:
    x: float
    y: float
    w: float
    h: float


@pytest.mark.parametrize("value", [(1, 2, 3, 4.5), [1, 2, 3, 4.5], OtherBox(1, 2, 3, 4.5), Box(1, 2, 3, 4.5)])
def test_a_box_is_made_of_numbers_or_of_another_box(value: object) -> None:
    assert Box.of(value) == Box(1.0, 2.0, 3.0, 4.5)


@pytest.mark.parametrize("text", ["1,2,3,4.5", " 1 2\t3 4.50 ", "1, 2, 3, 4.5"])
def test_a_box_is_read_from_text(text: str) -> None:
    assert Box.parse(text) == Box(1, 2, 3, 4.5)
    assert Box.parse(Box.parse(text).text()) == Box(1, 2, 3, 4.5)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,0,4", "1,2,3,-4", "nan,1,2,3", "1,2,inf,3"])
def test_what_is_no_box_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(BoxError, match=r"expected a box|box values|box must"):
        Box.parse(text)


def test_three_numbers_are_no_box() -> None:
    with pytest.raises(BoxError, match="four numbers"):
        Box.of((1, 2, 3))


def test_numpy_numbers_become_plain_ones() -> None:
    box = Box.of(list(np.array([1, 2, 3, 4], np.float32)))
    assert type(box.x) is float
