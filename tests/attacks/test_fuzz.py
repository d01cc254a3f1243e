"""Attack 18, its short form: 20,000 bent inputs. What a user would lose: the node, to one message of a stranger.

A million takes some minutes: `python -m tests.attacks.fuzz`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_no_input_crashes_hangs_swells_or_confuses_what_reads_it() -> None:
    command = [sys.executable, "-m", "tests.attacks.fuzz", "--inputs", "20000", "--seed", "34"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0 and "20000 inputs, 0 findings" in done.stdout, done.stdout + done.stderr
