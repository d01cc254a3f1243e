"""The first slice: a hundred operations, one, an audited release; each beside its yardstick of the same run."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import gridclient as grid
from gridclient import batches

ROOT = Path(__file__).resolve().parents[2]
MESSAGE = b"x" * 64
PASSWORD = "a-long-bench-password"
NEW_ANSWERS = 200
"""Questions of the release's row: each is another column, so that none is answered from the store."""


def run() -> bool:
    """Print the table; whether every target was met."""
    with one_node() as (place, folder):
        return table(place, folder)


@contextmanager
def one_node() -> Iterator[tuple[dict[str, Any], Path]]:
    """A grid of one node, `bench`, in a folder of its own: the node's entry in the ready file, and the folder."""
    with tempfile.TemporaryDirectory(prefix="gridsite-bench-") as folder:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "rungrid", "--dir", f"{folder}/grid", "--port", "0", "--nodes", "bench",
             "--ready-file", f"{folder}/ready.json"],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            ready = Path(folder) / "ready.json"
            while not ready.exists():
                if process.poll() is not None:
                    raise SystemExit("The grid did not start.")
                time.sleep(0.1)
            yield json.loads(ready.read_text())["nodes"]["bench"], Path(folder)
        finally:
            process.terminate()
            process.wait(15)


def table(place: dict[str, Any], folder: Path) -> bool:
    admin = grid.connect(place["url"], **place["admin"])
    admin.create_user("olivia", password=PASSWORD, roles=["owner"])
    admin.create_user("bob", password=PASSWORD, roles=["scientist"])
    owner = grid.connect(place["url"], username="olivia", password=PASSWORD)
    values = torch.rand(100, NEW_ANSWERS, dtype=torch.float64)
    columns = [f"c{number}" for number in range(NEW_ANSWERS)]
    records = grid.private_tensor(values, bounds=(0.0, 1.0), columns=columns)
    private = records.tag("#bench").describe("Numbers for a benchmark.").send(owner)
    owner.dataset(private.dataset).grant("bob", "aggregate", reason="Benchmark.")

    node = grid.connect(place["url"], username="bob", password=PASSWORD)
    remote = grid.send(torch.ones(4), node)
    mine = node.search("#bench")[0]

    def one() -> None:
        (remote + 1).get()

    def hundred() -> None:
        value = remote
        for _ in range(100):
            value = value + 1
        value.get()

    asked = mine[:, 0].sum()

    def again() -> None:
        asked.get()

    questions = iter([mine[:, number].sum() for number in range(NEW_ANSWERS)])

    def release() -> None:
        next(questions).get()

    echo = median_echo()
    for warm in (one, hundred, again):
        repeat(warm, 20)
    one_ms, hundred_ms, again_ms = repeat(one, 1000), repeat(hundred, 100), repeat(again, NEW_ANSWERS)
    release_ms = repeat(release, NEW_ANSWERS)
    trips = batches_sent(hundred)
    for each in (node, owner, admin):
        each.close()
    commit_ms = durable_commit(folder / "grid" / "bench" / "db.sqlite3")

    rows = [
        ("raw asyncio echo", echo, "", True),
        (
            "one operation and a get of a public value",
            one_ms,
            f"{one_ms / echo:.1f} of at most 20 x",
            one_ms <= 20 * echo,
        ),
        ("100 operations and a get", hundred_ms, "at most 4 ms", hundred_ms <= 4),
        ("    batches sent for these", trips, "at most 3", trips <= 3),
        ("bare durable commit", commit_ms, "", True),
        (
            "an audited exact release",
            release_ms,
            f"{release_ms / commit_ms:.1f} of at most 8 x",
            release_ms <= 8 * commit_ms,
        ),
        ("    the same question again, from the store", again_ms, f"{again_ms / commit_ms:.1f} x", True),
    ]
    print("slice: medians over loopback in milliseconds, yardsticks of the same run")
    for name, figure, target, met in rows:
        print(f"  {name:<46}{figure:9.3f}{target:>24}{'' if met else '   missed'}")
    return all(met for *_, met in rows)


def batches_sent(action: Callable[[], object]) -> int:
    """How many batches the client sends during `action`: each is at most one round trip."""
    sent = 0
    pack = batches.pack_batch

    def counting(body: bytes) -> bytes:
        nonlocal sent
        sent += 1
        return pack(body)

    with mock.patch.object(batches, "pack_batch", counting):
        action()
    return sent


def repeat(action: Callable[[], object], times: int) -> float:
    """Median milliseconds."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken) * 1e3


def durable_commit(path: Path) -> float:
    """Median milliseconds of one row inserted into the node's own database, with the node's settings, while it runs."""
    database = sqlite3.connect(path, isolation_level=None, timeout=20)
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE yardstick (id INTEGER PRIMARY KEY, text TEXT)")

    def commit() -> None:
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO yardstick (text) VALUES ('x')")
        database.execute("COMMIT")

    repeat(commit, 20)
    return repeat(commit, 200)


def _echo_server(port: Any) -> None:
    async def serve() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def median_echo() -> float:
    """Median milliseconds of a small message to an asyncio server in another process, and back."""
    context = multiprocessing.get_context("spawn")
    port = context.Queue()
    server = context.Process(target=_echo_server, args=(port,), daemon=True)
    server.start()

    async def measure() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.get())
        taken = []
        for _ in range(2000):
            begin = time.perf_counter()
            writer.write(MESSAGE)
            await reader.readexactly(len(MESSAGE))
            taken.append(time.perf_counter() - begin)
        writer.close()
        return statistics.median(taken) * 1e3

    try:
        return asyncio.run(measure())
    finally:
        server.terminate()
