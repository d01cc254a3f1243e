"""A node that is killed and started again at one address, behind a line that can be cut; and its database."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

import gridclient
from gridclient.datasets import Dataset
from gridclient.node import Node
from gridsite.deployment import Deployment
from gridsite.server import listen
from tests.factories import databases, processes
from tests.factories.grid import PATIENCE, stop
from tests.factories.line import Line, line_to
from tests.factories.raw import rest
from tests.factories.staff import PASSWORD, start_process, url_of

BASE = torch.arange(400, dtype=torch.float64).reshape(100, 4) % 50
"""Values of the dataset that everybody computes on."""
Rows = list[tuple[Any, ...]]


class Ground:
    """One node. `base`: a dataset on which the scientist may compute and take aggregates."""

    base: Dataset

    def __init__(self, deployment: Deployment, listener: Any, line: Line, query: Callable[[str], Rows]) -> None:
        self.deployment, self.line, self.query = deployment, line, query
        self._listener = listener
        self._starting = threading.Lock()
        self.process: subprocess.Popen[bytes] = start_process(deployment, listener)
        self.tokens: dict[str, str] = {}
        self.restarts = 0

    @property
    def storage(self) -> Path:
        return self.deployment.folder / "storage"

    def prepare(self) -> None:
        """The people, and the dataset that they share."""
        self.wait_until_up()
        with gridclient.connect(self.deployment.url, username="admin", password=PASSWORD) as admin:
            for name in ("owner", "scientist"):
                admin.create_user(name, password=PASSWORD, roles=[name])
        for name in ("admin", "owner", "scientist"):
            with gridclient.connect(self.deployment.url, username=name, password=PASSWORD) as person:
                self.tokens[name] = person.create_token(name="storm").token
        with self.enter("owner", direct=True) as owner:
            gridclient.private_tensor(BASE, name="base", columns=list("abcd"), bounds=([0] * 4, [50] * 4)).send(owner)
            self.base = owner.dataset("base")
            self.base.grant("scientist", "aggregate", reason="A study.")

    def enter(self, name: str, *, direct: bool = False) -> Node:
        """A new session of this account, over the line or beside it."""
        return gridclient.connect(self.deployment.url if direct else self.line.url, token=self.tokens[name])

    def wait_until_up(self) -> None:
        assert rest("GET", f"{self.deployment.url}/api/identity/", timeout=PATIENCE)[0] == 200

    def kill(self) -> None:
        """End the web process as a power cut does, and start it again at once, behind the same address."""
        with self._starting:
            self.process.kill()
            self._start_again()

    def supervise(self, over: threading.Event) -> None:
        """Start the web process again whenever it ends by itself, as the supervisor of every deployment does."""
        while not over.wait(0.1):
            with self._starting:
                if self.process.poll() is not None:
                    self._start_again()

    def _start_again(self) -> None:
        self.process.wait()
        self.process = start_process(self.deployment, self._listener)
        self.restarts += 1

    def kill_workers(self) -> int:
        """Kill every worker; how many those were."""
        try:
            found = processes.workers(self.process.pid)
        except ValueError:  # the node is only just starting
            return 0
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def kill_forkserver(self) -> None:
        """Kill the process that workers come from."""
        with suppress(ValueError, ProcessLookupError):
            os.kill(processes.forkserver(self.process.pid), signal.SIGKILL)


@contextmanager
def ground_in(folder: Path, *, query: Callable[[str], Rows] | None = None, **settings: str) -> Iterator[Ground]:
    """A node in `folder`. `query` reads its database, where `settings` say that this is another one than usual."""
    own = folder / "ward"
    if query is None:
        databases.prepare(folder, ["ward"])
        settings |= databases.settings_of(own)

    def ask(sql: str) -> Rows:
        with databases.opened(own) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    with listen("127.0.0.1", 0) as listener, line_to(listener.getsockname()[1]) as line:
        deployment = Deployment("node", "ward", own, url_of(listener), settings=settings)
        ground = Ground(deployment, listener, line, query or ask)
        over = threading.Event()
        supervisor = threading.Thread(target=ground.supervise, args=(over,))
        supervisor.start()
        try:
            ground.prepare()
            yield ground
        finally:
            over.set()
            supervisor.join()
            stop(ground.process, seconds=30)


def until(fact: Callable[[], Any], seconds: float) -> Any:
    """What `fact` returns once that is true, or its last answer."""
    end = time.monotonic() + seconds
    while not (found := fact()) and time.monotonic() < end:
        time.sleep(0.02)
    return found
