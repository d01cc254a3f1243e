"""Workers as the web process meets them: quick, isolated, mortal."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from apps.compute.messages import Append, Evaluate, Forget, Limits, Proposal, Propose, PutConstant
from apps.compute.spawning import ROOT
from apps.compute.workers import Worker, Workers
from gridclient.program.graph import Dtype, Node, Ref, constant, tensor_digest
from gridclient.wire.errors import InternalError, LimitExceededError
from gridclient.wire.messages import TensorHeader

Play = Callable[[Workers], Awaitable[None]]


@pytest.fixture(scope="module")
def play() -> Iterator[Callable[[Play], None]]:
    """Runs coroutines on one loop, with one forkserver for the module."""
    with asyncio.Runner() as runner:

        async def begin() -> Workers:
            workers = Workers()
            await workers.start()
            return workers

        workers = runner.run(begin())
        yield lambda coroutine: runner.run(coroutine(workers))  # type: ignore[arg-type]
        runner.run(workers.close())


def ones(worker: Worker) -> None:
    """Node 0: a matrix of ones."""
    data = struct.pack("<4f", 1, 1, 1, 1)
    digest = tensor_digest("float32", [2, 2], data)
    worker.send(PutConstant(digest, TensorHeader("float32", [2, 2], 16), data))
    worker.send(Append([constant(0, digest)]))


def ended(pid: int) -> bool:
    """Gone, or only waiting to be cleared away."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_a_hundred_operations_cost_one_question(play: Callable[[Play], None], tmp_path: Path) -> None:
    async def hundred(workers: Workers) -> None:
        worker = await workers.open("session", Limits(), tmp_path)
        ones(worker)
        for start in range(1, 1001, 100):
            worker.send(Append([Node(n, "aten::add.Tensor", [Ref(n - 1), 1.0]) for n in range(start, start + 100)]))
            worker.send(Forget([Ref(n - 1) for n in range(start, start + 100)]))
            reply = await worker.ask(Propose(9, Ref(start + 99)))
            assert isinstance(reply, Proposal)
            assert reply.ask == 9
            assert struct.unpack("<4f", reply.value or b"") == (start + 100,) * 4
        worker.kill()

    play(hundred)


def test_a_busy_worker_keeps_its_memory_and_an_idle_one_gives_it_back(
    play: Callable[[Play], None], tmp_path: Path
) -> None:
    """Otherwise the kernel takes a quarter of a training step's time, or idle sessions hold a node's memory."""
    extent = 2**21  # 8 MiB a value, in float32

    def faults(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])

    def resident(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def work(workers: Workers) -> None:
        worker = await workers.open("session", Limits(), tmp_path)
        worker.send(Append([Node(0, "grid::rand", [[extent], Dtype("float32"), 1])]))

        async def step(number: int) -> None:
            values = [Node(number + i, "aten::add.Tensor", [Ref(number + i - 1 if i else 0), 1.0]) for i in range(4)]
            worker.send(Append([*values, Node(number + 4, "aten::sum", [Ref(number + 3)])]))
            worker.send(Forget([Ref(number + i) for i in range(4)]))
            await worker.ask(Propose(1, Ref(number + 4)))
            worker.send(Forget([Ref(number + 4)]))

        async def fresh(first: int) -> int:
            """Bytes that ten steps take anew from the kernel."""
            before = faults(worker.pid)
            for number in range(first, first + 50, 5):
                await step(number)
            return (faults(worker.pid) - before) * os.sysconf("SC_PAGE_SIZE")

        await step(1)
        # Four values of forty. A machine with other work makes the worker idle at times: one run in which it was not.
        assert min([await fresh(6 + 50 * run) for run in range(4)]) < 4 * 4 * extent
        busy = resident(worker.pid)
        wait_until(lambda: resident(worker.pid) < busy - 4 * extent)
        await step(206)
        worker.kill()

    play(work)


def test_a_worker_has_no_secrets_no_network_and_no_foreign_files(play: Callable[[Play], None], tmp_path: Path) -> None:
    async def look(workers: Workers) -> None:
        worker = await workers.open("session", Limits(memory=2**30), tmp_path)
        ones(worker)
        await worker.ask(Propose(1, Ref(0)))
        proc = Path(f"/proc/{worker.pid}")
        assert sorted(os.listdir(proc / "fd")) == ["0", "1", "2", "3"]
        assert b"GRID_" not in (proc / "environ").read_bytes()
        limits = (proc / "limits").read_text()
        assert "Max core file size        0 " in limits
        assert "Max data size             unlimited" not in limits
        assert (proc / "stat").read_text().rpartition(")")[2].split()[16] == str(min(19, os.nice(0) + 10))  # nice
        if workers.isolated:
            devices = (proc / "net" / "dev").read_text().splitlines()[2:]
            assert [line.split(":")[0].strip() for line in devices] == ["lo"]
            assert not (proc / "net" / "route").read_text().splitlines()[1:]
        worker.kill()

    play(look)


def test_a_runaway_is_killed_and_its_neighbour_does_not_notice(play: Callable[[Play], None], tmp_path: Path) -> None:
    async def run(workers: Workers) -> None:
        slow = await workers.open("slow", Limits(deadline=0.3), tmp_path)
        other = await workers.open("other", Limits(), tmp_path)
        ones(slow)
        ones(other)
        big = [Node(1, "aten::view", [Ref(0), [1, 4]]), Node(2, "aten::select.int", [Ref(1), 1, 0])]
        big += [Node(3, "aten::unsqueeze", [Ref(2), 0]), Node(4, "aten::expand", [Ref(3), [9000, 9000]])]
        big += [Node(n, "aten::mm", [Ref(n - 1), Ref(n - 1)]) for n in range(5, 9)]
        slow.send(Append(big))
        question = asyncio.ensure_future(slow.ask(Evaluate(1, Ref(8), str(tmp_path / "big")), deadline=0.3))
        waiting = asyncio.ensure_future(slow.ask(Propose(2, Ref(0))))
        assert isinstance(await other.ask(Propose(1, Ref(0))), Proposal)
        with pytest.raises(LimitExceededError) as caught:
            await question
        assert caught.value.details["limit"] == 0.3
        with pytest.raises(LimitExceededError):
            await waiting
        with pytest.raises(LimitExceededError):
            slow.send(Append([]))
        assert not slow.alive
        wait_until(lambda: ended(slow.pid), 0.5)
        assert isinstance(await other.ask(Propose(2, Ref(0))), Proposal)
        other.kill()

    play(run)


def test_who_leaves_while_a_worker_starts_leaves_the_others_theirs(
    play: Callable[[Play], None], tmp_path: Path
) -> None:
    """Each worker ends by its own handle: else a session that is closed early ends its neighbours' computations."""

    async def leave_early(workers: Workers) -> None:
        for pause in (0.0, 0.001, 0.01):
            opening = asyncio.create_task(workers.open("leaves", Limits(), tmp_path))
            await asyncio.sleep(pause)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        first = await workers.open("first", Limits(), tmp_path)
        second = await workers.open("second", Limits(), tmp_path)
        ones(second)
        first.kill()
        await asyncio.sleep(0.1)
        assert isinstance(await second.ask(Propose(1, Ref(0))), Proposal)
        second.kill()
        assert not workers.pids

    play(leave_early)


def test_a_crash_is_one_text(play: Callable[[Play], None], tmp_path: Path) -> None:
    async def crash(workers: Workers) -> None:
        texts = set()
        for number in (signal.SIGKILL, signal.SIGSEGV):
            worker = await workers.open("session", Limits(), tmp_path)
            ones(worker)
            await worker.ask(Propose(1, Ref(0)))
            os.kill(worker.pid, signal.SIGSTOP)
            question = asyncio.ensure_future(worker.ask(Propose(1, Ref(0))))
            await asyncio.sleep(0)
            os.kill(worker.pid, number)
            os.kill(worker.pid, signal.SIGCONT)
            with pytest.raises(InternalError) as caught:
                await question
            texts.add(str(caught.value))
        assert len(texts) == 1

    play(crash)


def test_nothing_survives_a_killed_web_process(tmp_path: Path) -> None:
    """Even in the middle of a long computation."""
    script = f"""
import asyncio, pathlib
from apps.compute.messages import *
from apps.compute.workers import Workers
from gridclient.program.graph import Ref
async def main():
    workers = Workers()
    worker = await workers.open("s", Limits(), pathlib.Path({str(tmp_path)!r}))
    worker.send(Append([]))
    try:
        await worker.ask(Propose(1, Ref(0)))
    except Exception:
        pass  # it answers, so it runs
    print(worker.pid, workers._server.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    web = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    with web:
        assert web.stdout is not None
        worker, server = map(int, web.stdout.readline().split())
        os.kill(worker, signal.SIGSTOP)  # busy: it does not read its socket
        web.kill()
        wait_until(lambda: ended(server))
        wait_until(lambda: ended(worker))


def forked(serve: str, memory: int, times: int) -> list[list[str]]:
    """What `serve`, the body of a function, sends from workers that were forked one after the other."""
    code = f"""
import os, random, socket
from apps.compute import forkserver, worker
from apps.compute.messages import Limits
import numpy, torch
def serve(connection, limits):
{textwrap.indent(textwrap.dedent(serve), "    ")}
worker.serve = serve
for _ in range({times}):
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        forkserver.become_worker(theirs.fileno(), Limits(memory={memory}), os.getppid(), False)
    theirs.close()
    print(ours.makefile().read())
"""
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return [line.split() for line in done.stdout.splitlines()]


def test_two_workers_do_not_draw_alike() -> None:
    """A forked generator would give both sessions the same numbers (attack 27)."""
    body = 'connection.sendall(f"{random.random()} {numpy.random.rand()} {torch.rand(1).item()}".encode())'
    first, second = forked(body, 2**30, 2)
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_the_kernel_holds_a_worker_to_its_memory() -> None:
    body = """
        for size in (2**26, 2**29):
            try:
                torch.ones(size, dtype=torch.uint8)
                connection.sendall(b"had ")
            except RuntimeError:
                connection.sendall(b"refused ")
    """
    assert forked(body, 2**28, 1) == [["had", "refused"]]


def test_the_web_side_needs_no_torch() -> None:
    code = (
        "import sys, apps.compute.workers, apps.compute.readers.words, apps.compute.readers.labels\n"
        + "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_session_that_begins_as_the_forkserver_ends_gets_its_worker_from_the_next(
    play: Callable[[Play], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the session says meanwhile is refused otherwise, and its values never come to be."""

    async def look(workers: Workers) -> None:
        await workers.start()
        assert workers._server is not None
        workers._server.kill()
        workers._server.wait()
        # As for whoever asks before the kernel tells.
        monkeypatch.setattr(workers._server, "poll", lambda: None)
        worker = await workers.open("one", Limits(), tmp_path)
        ones(worker)
        assert await worker.ask(Propose(1, Ref(0)))
        worker.kill()

    play(look)
