"""A node whose sessions run on a Ray cluster: its people notice nothing, whatever ends.

The cluster is a real one, of this machine alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import gridclient
from apps.compute.messages import Limits
from apps.compute.ray_actor import Actor, versions
from apps.compute.ray_broker import SPARES
from apps.compute.workers import Cluster, Worker, Workers
from gridclient.node import Node
from gridclient.wire.errors import InternalError, LimitExceededError, SessionStoppedError
from tests.factories import processes
from tests.factories.cluster import RayCluster, ray_cluster
from tests.factories.crew import Crew, crew_of, eventually, sent
from tests.factories.staff import single_node

DEADLINE = 40
COMPUTING = 0.3
"""Seconds of the processor that only the runaway needs."""
SETTLED = 200.0
# The cluster starts, then the node, on a machine that is busy.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(places=8) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.variables.items():
            patch.setenv(name, value)
        yield cluster


@pytest.fixture(scope="module")
def crew(cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """People of a node whose sessions run there."""
    settings = {"GRID_WORKERS": "ray", "GRID_RAY_ADDRESS": cluster.address, "GRID_DEADLINE": str(DEADLINE)}
    folder = tmp_path_factory.mktemp("cluster")
    with single_node(folder, **settings) as server, crew_of(server) as crew:
        yield crew


@pytest.fixture
def ana(crew: Crew) -> Iterator[Node]:
    """A scientist, who leaves after the test and so frees her place."""
    with settled(crew) as ana:
        yield ana


def settled(crew: Crew, role: str = "scientist") -> Node:
    """Somebody who has a worker: on a machine that is busy, a session may find none ready at first."""
    node = crew.hire(role)
    end = time.monotonic() + SETTLED
    while True:
        try:
            assert sent(torch.ones(1), node).get() == 1
            return node
        except (InternalError, LimitExceededError):
            assert time.monotonic() < end, "the cluster has no place"
            time.sleep(0.5)


def runaway(node: Node) -> Any:
    """Products that take minutes."""
    value = sent(torch.ones(1), node).expand(6000, 6000)
    for _ in range(20):
        value = value @ value
    return value.sum()


@contextmanager
def open_question(node: Node, worker: int) -> Iterator[list[Exception]]:
    """Somebody waits for a runaway, which their worker computes by now; how that ended."""
    errors: list[Exception] = []

    def ask() -> None:
        try:
            runaway(node).get()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    before = processor_time(worker)
    thread.start()
    try:
        # Recording takes little of it.
        assert eventually(lambda: processor_time(worker) > before + COMPUTING, seconds=SETTLED)
        yield errors
    finally:
        thread.join()


def busy(cluster: RayCluster) -> set[int]:
    """Actors whose session has a worker."""
    return {actor for actor in cluster.actors if cluster.workers(actor)}


def test_what_is_sent_comes_back_from_another_machine_bit_for_bit(cluster: RayCluster, ana: Node) -> None:
    """Small values go through the calls, large ones by the folder that both machines have."""
    for size in (3, 9_000, 2_000_000):
        values = torch.arange(size, dtype=torch.float64)
        assert torch.equal((sent(values, ana) * 2 + 1).get(), values * 2 + 1)


def test_a_worker_there_has_no_secrets_no_network_and_no_part_of_ray(cluster: RayCluster, ana: Node) -> None:
    assert sent(torch.ones(3), ana).sum().get() == 3
    (actor,) = busy(cluster)
    (worker,) = cluster.workers(actor)
    assert sorted(os.listdir(f"/proc/{worker}/fd")) == ["0", "1", "2", "3"]
    assert b"RAY" not in Path(f"/proc/{worker}/environ").read_bytes()
    assert "Max data size             unlimited" not in Path(f"/proc/{worker}/limits").read_text()
    devices = Path(f"/proc/{worker}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_a_dataset_is_mapped_there_and_its_aggregate_is_the_owners(crew: Crew, ana: Node) -> None:
    owner = settled(crew, "owner")
    values = torch.arange(400, dtype=torch.float64).reshape(100, 4) % 50
    dataset = gridclient.private_tensor(values, name="ward", columns=list("abcd"), bounds=([0] * 4, [50] * 4))
    dataset.send(owner)
    owner.dataset("ward").grant(ana.user, "aggregate", reason="A study.")
    assert torch.equal(ana.dataset("ward").pointer().sum(0).get(), values.sum(0))
    owner.close()


def test_sessions_run_side_by_side_and_each_has_its_own_values(cluster: RayCluster, crew: Crew) -> None:
    people = [settled(crew) for _ in range(2)]
    found: dict[int, torch.Tensor] = {}

    def work(number: int) -> None:
        value = sent(torch.full((2000,), float(number)), people[number])
        for _ in range(100):
            value = value + 1
        found[number] = value.sum().get()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: float(value) for number, value in found.items()} == {n: 2000.0 * (n + 100) for n in range(2)}
    assert len(busy(cluster)) == 2
    for person in people:
        person.close()
    assert eventually(lambda: not busy(cluster), seconds=SETTLED)


def test_a_runaway_is_stopped_at_its_deadline_and_its_neighbour_goes_on(cluster: RayCluster, crew: Crew) -> None:
    bob = settled(crew)
    others = busy(cluster)
    ana = settled(crew)
    near = sent(torch.ones(3), bob)
    assert near.sum().get() == 3
    assert sent(torch.ones(3), ana).sum().get() == 3
    (actor,) = busy(cluster) - others
    with pytest.raises(LimitExceededError) as caught:
        runaway(ana).get()
    assert caught.value.details["limit"] == DEADLINE
    assert eventually(lambda: actor not in cluster.actors, seconds=SETTLED)
    assert (near * 2).sum().get() == 6
    bob.close()
    ana.close()


@pytest.mark.parametrize("what", ["actor", "worker"])
def test_values_live_on_when_their_machine_loses_them(cluster: RayCluster, ana: Node, what: str) -> None:
    """The client makes them again from what it recorded; the one question that was open is told."""
    values = sent(torch.arange(5.0), ana)
    doubled = values * 2
    assert doubled.sum().get() == 20
    (actor,) = busy(cluster)
    (worker,) = cluster.workers(actor)
    with open_question(ana, worker) as errors:
        os.kill({"actor": actor, "worker": worker}[what], signal.SIGKILL)
    assert [type(error) for error in errors] == [InternalError]
    assert "worker stopped" in str(errors[0])
    assert eventually(lambda: actor not in cluster.actors and not processes.running(worker), seconds=SETTLED)
    assert torch.equal((doubled + 1).get(), torch.arange(5.0) * 2 + 1)


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_session_that_is_stopped_ends_there_in_the_middle_of_its_work(
    cluster: RayCluster, crew: Crew, ana: Node
) -> None:
    assert sent(torch.ones(3), ana).sum().get() == 3
    (actor,) = busy(cluster)
    (worker,) = cluster.workers(actor)
    with open_question(ana, worker) as errors:
        session = eventually(lambda: next((each for each in crew.admin.sessions() if each.user == ana.user), None))
        session.stop(reason="Maintenance tonight.")
    assert [type(error) for error in errors] == [SessionStoppedError]
    assert eventually(lambda: actor not in cluster.actors and not processes.running(worker), seconds=SETTLED)


def test_who_looks_after_the_node_sees_that_a_worker_is_elsewhere(cluster: RayCluster, crew: Crew, ana: Node) -> None:
    assert sent(torch.ones(3), ana).sum().get() == 3
    look = {"pid": None, "rss": None, "pss": None, "cpu": None, "isolated": True}
    assert eventually(lambda: [each.worker for each in crew.admin.sessions() if each.user == ana.user] == [look]), (
        crew.admin.sessions()
    )


# --- without a node -----------------------------------------------------------------------------------------------


def played(cluster: Cluster, play: Callable[[Workers], Any]) -> Any:
    async def run() -> Any:
        workers = Workers(cluster)
        try:
            return await play(workers)
        finally:
            await workers.close()

    return asyncio.run(run())


@pytest.mark.usefixtures("crew")
def test_nothing_is_left_on_the_cluster_when_the_web_process_ends(cluster: RayCluster, tmp_path: Path) -> None:
    sessions = busy(cluster)

    async def open_and_leave(workers: Workers) -> Worker:
        worker = await workers.open("session", Limits(), tmp_path)
        assert workers.isolated and worker.alive and worker.pid is None and workers.pids == []
        return worker

    worker = played(Cluster(cluster.address, tmp_path), open_and_leave)
    assert not worker.alive
    # The node beside it has its spare ones, which may be others by now.
    assert eventually(lambda: len(cluster.actors - sessions) <= SPARES, seconds=SETTLED)
    assert eventually(lambda: not [*tmp_path.iterdir()], seconds=SETTLED)


def test_a_cluster_that_is_not_there_is_named_at_once(cluster: RayCluster, tmp_path: Path) -> None:
    with pytest.raises(InternalError, match=r"No Ray cluster can be reached at 127\.0\.0\.1:1 .*GRID_RAY_ADDRESS"):
        played(Cluster("127.0.0.1:1", tmp_path), lambda workers: workers.start())


def test_a_machine_without_the_nodes_storage_or_versions_takes_no_session(tmp_path: Path) -> None:
    """Else its sessions would fail at their first large value, or compute other values than the node's."""
    actor = Actor()
    probe = tmp_path / "probe"
    assert actor.begin(versions(), str(probe), "word") == "storage"
    probe.write_text("another")
    assert actor.begin(versions(), str(probe), "word") == "storage"
    probe.write_text("word")
    assert actor.begin("other", str(probe), "word") == "version"
    assert not probe.with_suffix(".seen").exists()
    assert actor.begin(versions(), str(probe), "word") is True
    assert probe.with_suffix(".seen").read_text() == "word"
    actor._server.kill()
    actor._server.wait()
    actor._control.close()
