"""A grid of its own on this machine: one network and four nodes, removed at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
NODES = "hospital,company,university,public"
START_SECONDS = 240
STOP_SECONDS = 15


@contextmanager
def running(port: int) -> Iterator[Path]:
    """An empty grid from `port` on (0: any free ports). Yields its ready file: addresses and sign-ins.

    Raises SystemExit, with the grid's own words, where it does not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="gridsite-demo-"))
    grid = _start(folder, port)
    try:
        _wait_until_ready(grid, folder)
        yield folder / "ready.json"
    finally:
        _stop(grid)
        shutil.rmtree(folder, ignore_errors=True)


def read(ready: Path) -> dict[str, Any]:
    """What a ready file says: {"network": {"url", "admin"}, "nodes": {name: {"url", "admin"}}}."""
    content: dict[str, Any] = json.loads(ready.read_text())
    return content


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(MANAGE), "rungrid", "--dir", str(folder / "grid"), "--port", str(port)]
    # Settings in the caller's environment are meant for another deployment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GRID_", "DJANGO_"))}
    with (folder / "grid.log").open("wb") as log:
        # A session of its own: Ctrl-C reaches the demo alone, which closes its connections before it ends the grid.
        return subprocess.Popen(
            [*command, "--nodes", NODES, "--ready-file", str(folder / "ready.json")],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _wait_until_ready(grid: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and grid.poll() is None:
        if (folder / "ready.json").exists():
            return
        time.sleep(0.1)
    said = (folder / "grid.log").read_text(errors="replace").strip()[-3000:].removeprefix("CommandError: ")
    raise SystemExit(f"The grid did not start. {said or 'It said nothing.'}")


def _stop(grid: subprocess.Popen[bytes]) -> None:
    grid.terminate()
    try:
        grid.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        grid.kill()
        grid.wait()
