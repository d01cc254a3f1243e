"""What a newcomer sees first: the demo, the README's tour and the tutorial show what a run gives today."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.tutorial.build import NAMES

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 380
pytestmark = pytest.mark.timeout(SECONDS + 20)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)


NUMBER = re.compile(r"-?\d+\.\d+")


def _shown(text: str) -> str:
    """A walk in one line, without what is another in each run: ports, ids of requests, hashes of programs."""
    text = re.sub(r"http://127\.0\.0\.1:\d+", "URL", text)
    text = re.sub(r"<DataRequest [0-9a-f]{8} ", "<DataRequest ID ", text)
    text = re.sub(r"\([0-9a-f]{64}\)", "(HASH)", text)
    return " ".join(text.split())


def test_every_step_of_the_demo_holds_and_the_readme_shows_it() -> None:
    run = _run("demo", "--once", "--port", "0")
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    shown = _shown(run.stdout)
    drawn = NUMBER.sub("N", shown)
    tour = (ROOT / "README.md").read_text().partition("## A tour")[2].partition("\n## ")[0]
    steps = [
        step for block in re.findall(r"```\n(.*?)```", tour, re.DOTALL) for step in re.split(r"(?m)^(?=\d)", block)
    ]
    told = [_shown(part).strip() for step in steps for part in step.split("...")]
    assert len(told) > 30
    for part in told:
        if part not in shown:
            # An answer with noise, which is another in each run.
            assert " between " in part and NUMBER.sub("N", part) in drawn, part


@pytest.mark.parametrize("name", NAMES)
def test_who_follows_the_tutorial_gets_what_it_shows(name: str) -> None:
    run = _run("docs.tutorial.build", "--check", name)
    assert run.returncode == 0, f"Build the notebook again with `make tutorial`.\n{run.stdout}\n{run.stderr}"
