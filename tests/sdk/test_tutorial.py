"""The tutorial's notebook: what it shows is what a run of its source gives today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(400)
def test_a_newcomer_who_follows_the_tutorial_gets_what_it_shows() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "docs.tutorial.build", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert run.returncode == 0, f"Build the notebook again with `make tutorial`.\n{run.stdout}\n{run.stderr}"
