"""A Ray cluster of one machine, for as long as a test file needs it: a process of its own, without network."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from apps.compute.spawning import ROOT
from tests.factories import processes

_HEAD = """
import sys, ray
for left in (2, 1, 0):
    try:
        ray.init(
            num_cpus=1, resources={"gridsite": int(sys.argv[1])}, object_store_memory=2**27, include_dashboard=False,
            configure_logging=False, log_to_driver=False, _temp_dir=sys.argv[2],
        )
        break
    except Exception:
        # It gives itself 30 seconds, which a busy machine may need for something else.
        ray.shutdown()
        if not left:
            raise
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class RayCluster:
    """`address` is what GRID_RAY_ADDRESS takes, `variables` what a client needs beside it; `folder` has Ray's logs."""

    address: str
    variables: dict[str, str]
    folder: Path
    head: int

    @property
    def actors(self) -> set[int]:
        """The processes of the actors that run."""
        return {pid for pid in processes.descendants(self.head) if processes.command(pid).startswith(b"ray::Actor")}

    def workers(self, actor: int) -> set[int]:
        """The workers of an actor's forkserver."""
        return {worker for server in processes.children(actor) for worker in processes.children(server)}


@contextmanager
def ray_cluster(places: int) -> Iterator[RayCluster]:
    """A cluster that takes so many sessions."""
    # Sockets have short paths.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-W", "ignore", "-c", _HEAD, str(places), folder]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GRID_"))}
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "HOME": folder, **own}
        with open(Path(folder) / "head.log", "wb") as log:
            head = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        with head:
            assert head.stdin is not None and head.stdout is not None
            try:
                address = head.stdout.readline().strip()
                assert address, (Path(folder) / "head.log").read_text()
                yield RayCluster(address, own, Path(folder), head.pid)
            finally:
                # Where its start failed, the head has ended before what it started.
                for pid in {head.pid, *processes.descendants(head.pid), *processes.naming(folder)}:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
