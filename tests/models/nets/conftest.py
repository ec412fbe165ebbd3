"""What tests of networks look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from duotrack.nets.narrowing import Crops

if TYPE_CHECKING:
    from conftest import NetworkInput


@pytest.fixture(scope="session")
def crops(network_input: NetworkInput) -> Crops:
    template = network_input.template
    arrays = (template.crop, template.present, template.box, network_input.search, network_input.present)
    return Crops(*map(torch.from_numpy, arrays))
