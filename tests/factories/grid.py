"""A real grid for tests that need live servers: one network, two nodes, started once for all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.factories import databases

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
PATIENCE = 240.0


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    username: str
    password: str


@dataclass(frozen=True)
class LiveGrid:
    """`network` and `nodes` with the sign-in of their administrators; `process` is `rungrid` itself."""

    folder: Path
    process: subprocess.Popen[bytes]
    network: Server
    nodes: dict[str, Server]

    @property
    def hospital(self) -> Server:
        return self.nodes["hospital"]

    @property
    def company(self) -> Server:
        return self.nodes["company"]


def start(folder: Path, *, nodes: str, port: int = 0) -> subprocess.Popen[bytes]:
    """`rungrid` in `folder`, as a user starts it: without any setting in the environment."""
    databases.prepare(folder, ["network", *nodes.split(",")])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GRID_", "DJANGO_"))}
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--dir", str(folder), "--port", str(port), "--nodes", nodes, "--ready-file", str(folder / "ready")]
    arguments += databases.options_of(folder)
    with (folder / "rungrid.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(MANAGE), "rungrid", *arguments], env=environment, stdout=log, stderr=log
        )


def wait_until_ready(folder: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The content of the ready file, once it is there. Fails with the grid's own words when it ended instead."""
    end = time.monotonic() + PATIENCE
    while not (folder / "ready").exists():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"rungrid is not ready ({process.poll()}):\n{(folder / 'rungrid.log').read_text()[-4000:]}")
        time.sleep(0.02)
    ready: dict[str, Any] = json.loads((folder / "ready").read_text())
    return ready


def stop(process: subprocess.Popen[bytes], *, seconds: float = 10) -> int:
    """SIGTERM, and its exit status. It must end in time."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@contextmanager
def running(folder: Path, *, nodes: str = "hospital,company", port: int = 0) -> Iterator[LiveGrid]:
    """A grid that is stopped at the end."""
    (folder / "ready").unlink(missing_ok=True)
    process = start(folder, nodes=nodes, port=port)
    try:
        ready = wait_until_ready(folder, process)
        yield LiveGrid(
            folder,
            process,
            _server("network", ready["network"]),
            {name: _server(name, entry) for name, entry in ready["nodes"].items()},
        )
    finally:
        if process.poll() is None:
            stop(process)


def _server(name: str, entry: dict[str, Any]) -> Server:
    return Server(name, entry["url"], entry["admin"]["username"], entry["admin"]["password"])


@pytest.fixture(scope="session")
def grid() -> Iterator[LiveGrid]:
    """The grid of all tests of this run: they share it, so each makes its own people and datasets."""
    with tempfile.TemporaryDirectory(prefix="gridsite-grid-") as folder, running(Path(folder)) as live:
        yield live
