"""Processes that workers come from: started with one control socket, and with an environment that is written out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def spawn(module: str, control: int, *arguments: str, more: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Run a module of ours, with the descriptor of its control socket as first argument.

    It gets nothing of our environment but `more`: keys and passwords are not for workers.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, str(control), *arguments],
        pass_fds=[control],
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
        # One thread each, or a fork would lose the others.
        env={
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",
            **(more or {}),
        },
    )
