"""The demonstration refuses what it cannot use before it starts anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from demo.__main__ import main


@pytest.mark.parametrize("name", ["nope", "digits.npz", "train-images-idx3-ubyte"])
def test_a_missing_file_of_digits_is_told_before_a_grid_is_started(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", "--mnist", str(tmp_path / name)])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert f"There is no file {tmp_path / name}." in told.err
    assert "Starting" not in told.out
