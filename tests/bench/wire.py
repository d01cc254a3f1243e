"""Long values both ways, published ones, a neighbour who computes without end, a restart, and a crowd.

Beside yardsticks of the same run: raw TCP into fresh memory, and a plain file that is written and synced. Memory is
the sum of the proportional set sizes of the node's web process, forkserver and workers, taken in rounds of their own,
so that looking at it takes nothing of the time. `ARGS="--minutes 10"` for a longer crowd.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

import gridclient as grid
from gridsite.deployment import Deployment
from gridsite.server import listen
from tests.factories import processes
from tests.factories.crew import PASSWORD, Crew, crew_of, fresh
from tests.factories.grid import stop
from tests.factories.raw import sign_in
from tests.factories.staff import server_of, start_process, url_of

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20
SIZES = (100_000_000, 1_000_000_000)
ROUNDS = {SIZES[0]: 7, SIZES[1]: 3}
BESIDE = 64
"""MiB that a node may take for a long value, beside the value itself."""
TINY = 600
IDLE, BUSY, PAUSE = 1000, 50, 0.25
MINUTES = 1.0
LAG = 0.005
METRICS = "a-token-for-measuring"
SETTINGS = {
    "GRID_MAX_SESSIONS": str(IDLE + BUSY + 50),
    "GRID_MAX_SESSIONS_OF_ACCOUNT": str(IDLE + BUSY + 50),
    "GRID_METRICS_TOKEN": METRICS,
    "GRID_LOG": "plain",
}


class Row(NamedTuple):
    name: str
    figure: str
    target: str = ""
    met: bool = True

    def __str__(self) -> str:
        return f"  {self.name:<58}{self.figure:>22}  {self.target:<34}{'' if self.met else 'missed'}".rstrip()


class Bench:
    """A node that can be killed and started again at its address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with listen("127.0.0.1", 0) as listener:
            self.deployment = Deployment("node", "bench", folder / "bench", url_of(listener), settings=SETTINGS)
            self.process = start_process(self.deployment, listener)
        self.server = server_of(self.deployment, self.deployment.url)

    def start_again(self) -> None:
        """After its process was killed. Returns when the port answers."""
        with listen("127.0.0.1", int(self.deployment.url.rpartition(":")[2])) as listener:
            self.process = start_process(self.deployment, listener)
        server_of(self.deployment, self.deployment.url)

    def memory(self) -> int:
        """Bytes of the node and its workers, pages that they share counted once."""
        return processes.memory(self.process.pid)

    @contextmanager
    def peak(self) -> Iterator[list[int]]:
        """The most that the node's memory grows meanwhile, as the list's only item."""
        idle, most, done = self.memory(), [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                most[0] = max(most[0], self.memory() - idle)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield most
        finally:
            done.set()
            watcher.join()


def run(minutes: float = MINUTES) -> bool:
    """Print the table; whether every target was met."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 4 * (IDLE + BUSY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), max(hard, most)))
    print("wire: medians over loopback, yardsticks of the same run", flush=True)
    met = True
    with tempfile.TemporaryDirectory(prefix="gridsite-bench-") as folder:
        node = Bench(Path(folder))
        try:
            with crew_of(node.server) as crew:
                tables: list[Callable[[], list[Row]]] = [
                    *(lambda size=size: long_values(node, crew, size) for size in SIZES),  # type: ignore[misc]
                    *(lambda size=size: published(node, crew, size) for size in SIZES),  # type: ignore[misc]
                    lambda: beside_a_neighbour(crew),
                    lambda: restart(node, crew),
                ]
                for table in tables:
                    met = _shown(table()) and met
            met = _shown(crowd(node, minutes)) and met
        finally:
            torch.set_num_threads(threads)
            if node.process.poll() is None:
                stop(node.process)
    return met


def _shown(rows: list[Row]) -> bool:
    for row in rows:
        print(row, flush=True)
    return all(row.met for row in rows)


# --- long values ----------------------------------------------------------------------------------------------------


def long_values(node: Bench, crew: Crew, nbytes: int) -> list[Row]:
    values = torch.rand(nbytes // 4)
    name = crew.hire("scientist").user
    taken: dict[str, list[float]] = {"tcp": [], "sent": [], "fetched": []}
    for _ in range(ROUNDS[nbytes]):
        taken["tcp"].append(raw_tcp(nbytes))
        with _session(crew, name) as session:
            values[0] += 1  # what a session knows is not sent again
            begin = time.perf_counter()
            there = grid.send(values, session)
            _use(there)
            taken["sent"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            back = there.get()
            taken["fetched"].append(time.perf_counter() - begin)
            assert torch.equal(back, values)
            del there, back
    with _session(crew, name) as session:
        values[0] += 1
        with node.peak() as sending:
            there = grid.send(values, session)
            _use(there)
        with node.peak() as fetching:
            there.get()
        grown = sending[0] + fetching[0]
    rate = {what: nbytes / statistics.median(seconds) / 1e9 for what, seconds in taken.items()}
    size = _size(nbytes)
    rows = [Row(f"{size} by raw TCP into fresh memory", f"{rate['tcp']:.2f} GB/s")]
    for what in ("sent", "fetched"):
        share = rate[what] / rate["tcp"]
        rows.append(Row(f"    {what}", f"{rate[what]:.2f} GB/s", f"{share:.2f} of at least 0.50", share >= 0.5))
    most = nbytes / MIB + BESIDE
    rows.append(Row("    the node grows by", f"{grown / MIB:.0f} MiB", f"at most {most:.0f}", grown / MIB <= most))
    return rows


@contextmanager
def _session(crew: Crew, name: str) -> Iterator[grid.Node]:
    """A session whose worker is there: a new one for each round, because constants stay for as long as a session."""
    with grid.connect(crew.server.url, username=name, password=PASSWORD) as session:
        _use(grid.send(torch.ones(2), session))
        yield session


def _use(pointer: Any) -> None:
    pointer[:1].get()


def raw_tcp(nbytes: int) -> float:
    """Seconds from the first byte until another process has all of them in memory that it just allocated."""
    context = multiprocessing.get_context("fork")
    with socket.create_server(("127.0.0.1", 0)) as server:
        receiver = context.Process(target=_receive, args=(server, nbytes), daemon=True)
        receiver.start()
        with socket.create_connection(server.getsockname()) as connection:
            data = memoryview(os.urandom(MIB))
            begin = time.perf_counter()
            for offset in range(0, nbytes, MIB):
                connection.sendall(data[: min(MIB, nbytes - offset)])
            connection.recv(1)
            seconds = time.perf_counter() - begin
        receiver.join()
    return seconds


def _receive(server: socket.socket, nbytes: int) -> None:
    connection, _ = server.accept()
    left = memoryview(bytearray(nbytes))
    while left:
        left = left[connection.recv_into(left) :]
    connection.sendall(b"!")


# --- publishing -----------------------------------------------------------------------------------------------------


def published(node: Bench, crew: Crew, nbytes: int) -> list[Row]:
    owner = crew.hire("owner")
    values = torch.rand(nbytes // 4 // 100, 100)
    taken: dict[str, list[float]] = {"file": [], "published": []}
    for number in range(ROUNDS[nbytes] + 1):
        taken["file"].append(_plain_file(node.folder / "plain", values))
        records = grid.private_tensor(values, name=fresh("bench"), bounds=(0.0, 1.0))
        if number:
            begin = time.perf_counter()
            records.send(owner)
            taken["published"].append(time.perf_counter() - begin)
        else:
            with node.peak() as grown:
                records.send(owner)
    rate = {what: nbytes / statistics.median(seconds) / 1e9 for what, seconds in taken.items()}
    share = rate["published"] / rate["file"]
    met = grown[0] / MIB <= BESIDE
    return [
        Row(f"{_size(nbytes)} into a plain file, synced", f"{rate['file']:.2f} GB/s"),
        Row("    published", f"{rate['published']:.2f} GB/s", f"{share:.2f} of at least 0.50", share >= 0.5),
        Row("    the node grows by", f"{grown[0] / MIB:.0f} MiB", f"at most {BESIDE}", met),
    ]


def _plain_file(path: Path, values: torch.Tensor) -> float:
    begin = time.perf_counter()
    with path.open("wb") as file:
        file.write(values.numpy().data)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begin
    path.unlink()
    return seconds


def _size(nbytes: int) -> str:
    return f"{nbytes // 10**6:,} MB"


# --- a neighbour ----------------------------------------------------------------------------------------------------


def beside_a_neighbour(crew: Crew) -> list[Row]:
    tiny = grid.send(torch.ones(4), crew.hire("scientist"))
    matrix = grid.send(torch.rand(1500, 1500) / 1500, crew.hire("scientist"))
    quiet = _p99(tiny)
    over, products = threading.Event(), [0]

    def without_end() -> None:
        product = matrix
        while not over.is_set():
            for _ in range(10):
                product = product @ matrix
            product[:1, :1].get()
            products[0] += 10

    neighbour = threading.Thread(target=without_end)
    neighbour.start()
    try:
        time.sleep(1)
        beside = _p99(tiny)
    finally:
        over.set()
        neighbour.join()
    ratio = beside / quiet
    return [
        Row("p99 of a tiny operation and its value", f"{quiet * 1e3:.2f} ms"),
        Row(
            "    beside a neighbour's endless matrix product",
            f"{beside * 1e3:.2f} ms",
            f"{ratio:.1f} of at most 5 x, {products[0]} products",
            ratio <= 5,
        ),
    ]


def _p99(tiny: Any) -> float:
    taken = []
    for _ in range(TINY):
        begin = time.perf_counter()
        (tiny + tiny).get()
        taken.append(time.perf_counter() - begin)
    return sorted(taken)[int(0.99 * TINY)]


# --- a restart ------------------------------------------------------------------------------------------------------


def restart(node: Bench, crew: Crew) -> list[Row]:
    """From the first answer of a node that was killed until somebody who waits for a value has it."""
    logging.getLogger("gridclient").setLevel(logging.ERROR)  # that connections are lost is the point here
    after = []
    for _ in range(5):
        session = crew.enter(crew.hire("scientist").user)
        value = grid.send(torch.arange(8.0), session)
        for _ in range(100):
            value = value + 1
        _use(value)
        os.kill(node.process.pid, signal.SIGKILL)
        node.process.wait()
        came: list[float] = []
        waiting = threading.Thread(target=lambda v=value, c=came: (v.get(), c.append(time.perf_counter())))
        waiting.start()
        node.start_again()
        back = time.perf_counter()
        waiting.join()
        after.append(came[0] - back)
    worst = max(after)
    figure = f"{statistics.median(after):.2f} s, worst {worst:.2f}"
    return [Row("a value that was waited for, after the node's return", figure, "at most 1 s", worst <= 1)]


# --- a crowd --------------------------------------------------------------------------------------------------------


def crowd(node: Bench, minutes: float) -> list[Row]:
    """The memory at the end of its second half is compared with that at its start: what a beginning needs may stay.

    16 MiB are allowed, and 1 KiB for each operation: a session's program is kept, and grows with what is asked.
    """
    seconds = 60 * minutes
    token = sign_in(node.server.url, node.server.username, node.server.password)
    arguments = [node.server.url, token, str(IDLE), str(BUSY), str(seconds), str(PAUSE)]
    helper = subprocess.Popen(
        [sys.executable, "-m", "tests.factories.crowd", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert helper.stdout is not None and helper.stdout.readline() == "ready\n", "The crowd did not come."
    late, total = _lag(node)
    time.sleep(seconds / 2)
    half = node.memory()
    time.sleep(seconds / 2 - 2)
    whole = node.memory()
    late_after, total_after = _lag(node)
    met = json.loads(helper.communicate()[0])
    share = (late_after - late) / max(1, total_after - total)
    trips, grown = sorted(met["round_trips"]), (whole - half) / MIB
    most = 16 + met["asks"] / 2 / 1024
    return [
        Row(f"{IDLE:,} idle and {BUSY} busy sessions for {minutes:g} min", f"{met['asks'] / seconds:.0f} values/s"),
        Row("    errors", str(len(met["errors"])), "none", not met["errors"]),
        Row(
            "    memory in the second half",
            f"{half / MIB:.0f} {grown:+.1f} MiB",
            f"at most +{most:.0f}",
            grown <= most,
        ),
        Row("    event loop late by more than 5 ms", f"{share:.2%}", "at most 1 %", share <= 0.01),
        Row("    p99 of a websocket ping", f"{trips[int(0.99 * len(trips))] * 1e3:.2f} ms"),
    ]


def _lag(node: Bench) -> tuple[int, int]:
    """How often the event loop was late by more than `LAG`, and how often that was looked at."""
    request = urllib.request.Request(f"{node.server.url}/metrics", headers={"Authorization": f"Bearer {METRICS}"})
    with urllib.request.urlopen(request) as response:
        lines = response.read().decode().splitlines()
    name = "gridsite_event_loop_lag_seconds"
    found = dict(line.rsplit(" ", 1) for line in lines if line.startswith(name))
    total = int(float(found[f"{name}_count"]))
    return total - int(float(found[f'{name}_bucket{{le="{LAG}"}}'])), total
