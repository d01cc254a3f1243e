"""Published values and constants in a worker's memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from apps.compute import mapped
from apps.datasets.ingest.files import safetensors_header
from tests.factories.programs import table_asset, tensor_asset


def test_values_lie_in_memory_as_torch_lays_its_own(tmp_path: Path) -> None:
    """Elsewhere a matrix product is added up in another order, and is not the scientist's to the last bit."""
    for number in range(8):  # headers of different lengths
        spec = tensor_asset(tmp_path / str(number), torch.rand(20, 5), columns=["c" * number] * 5)
        assert mapped.tensor(spec, "values").data_ptr() % mapped.ALIGNED == 0
    table = table_asset(tmp_path / "table", {"a": [1.0, 2.0, 3.0], "b": [True, False, True]}, {"a": "number"}, None)
    for names in ("a", "b", ["a"]):
        assert mapped.columns(table, "values", names).data_ptr() % mapped.ALIGNED == 0


@pytest.mark.parametrize("length", range(1, 9))
def test_published_values_begin_where_they_can_be_mapped(length: int) -> None:
    header = safetensors_header([("values" * length, "float64", [10, 2]), ("presence", "uint8", [10])])
    assert len(header) % mapped.ALIGNED == 0
