"""Everything here is float64, the optimizers' step counters too: torch gives them the default dtype."""

import pytest
import torch


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
