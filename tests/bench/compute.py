"""Training, plans, columns and start-up, each beside plain torch in the same run, with one thread on both sides."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import gridclient as grid
from gridclient.models import send_module
from gridclient.recorder import Recorder
from tests.factories.crew import Crew, crew_of, fresh
from tests.factories.grid import running

STEPS = 100
ROUNDS = 3
"""Of short measurements so many are taken in turn with the local ones, and the median ratio counts."""
IMAGES = 1024
ROWS, COLUMNS = 1_000_000, 4
Step = Callable[[int], Tensor]
"""One training step on the batch of that number; its loss."""


class Row(NamedTuple):
    """`ours` and `local` in the unit that the name says; `most` is what their ratio, or `ours` alone, may be."""

    name: str
    ours: float
    local: float | None = None
    most: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours if self.local is None else self.ours / self.local

    @property
    def met(self) -> bool:
        return self.most is None or self.ratio <= self.most

    def __str__(self) -> str:
        beside = "" if self.local is None else f"{self.local:10.3f}{self.ratio:8.2f} x"
        target = "" if self.most is None else f"at most {self.most:g}{'' if self.local is None else ' x'}"
        return f"  {self.name:<52}{self.ours:10.3f}{beside:<20}{target:>16}{'' if self.met else '   missed'}"


class Net(nn.Module):
    """The network for MNIST of the original system's examples, whose federated steps its figures were taken with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.log_softmax(self.fc2(F.relu(self.fc1(x.flatten(1)))), 1)


def run() -> bool:
    """Print the table; whether every target was met."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="gridsite-bench-") as folder,
            running(Path(folder), nodes="bench") as live,
            crew_of(live.nodes["bench"]) as crew,
        ):
            rows = [*training(crew), plan(crew), *columns(crew, Path(folder)), *start_up()]
    finally:
        torch.set_num_threads(threads)
    print(f"compute: means over {STEPS} steps, medians elsewhere; one thread on the node and here")
    print(f"  {'':<52}{'grid':>10}{'local':>10}{'ratio':>10}")
    for row in rows:
        print(row)
    return all(row.met for row in rows)


# --- training -------------------------------------------------------------------------------------------------------


def training(crew: Crew) -> list[Row]:
    images, labels = torch.rand(IMAGES, 1, 28, 28), torch.randint(10, (IMAGES,))
    node, (x, y) = private(crew, images, labels)
    rows = []
    recorded = []
    for batch, most, rounds in ((64, 1.3, ROUNDS), (512, 1.1, 1)):
        model = Net()
        here = stepping(model, images, labels, batch)
        there = stepping(grid.send(Net(), node), x, y, batch)
        there(0).get()  # type: ignore[attr-defined]
        here(0)
        pairs = []
        for _ in range(rounds):
            local = timed(lambda step=here: [step(number) for number in range(STEPS)])
            before, begin = node.recorder.tape.nodes, time.perf_counter()
            losses = [there(number) for number in range(STEPS)]
            recording = time.perf_counter() - begin
            losses[-1].get()  # type: ignore[attr-defined]
            pairs.append((time.perf_counter() - begin, local))
            recorded.append(recording / (node.recorder.tape.nodes - before))
        ours, local = median_pair(pairs)
        rows.append(Row(f"a training step of a CNN, batch {batch}, ms", ours / STEPS * 1e3, local / STEPS * 1e3, most))
        if batch == 64:
            each = timed(lambda step=there: [step(number).get() for number in range(STEPS)])  # type: ignore[attr-defined]
            rows.append(Row("    with its loss taken at every step, ms", each / STEPS * 1e3, local / STEPS * 1e3))
    alone, live = recording_alone(), statistics.median(recorded)
    rows.append(Row("recording an operation of these steps, us", alone * 1e6, most=25))
    return [*rows, Row("    while a node on the same machine works on them, us", live * 1e6)]


class Nowhere:
    """A recorder's channel to no node: what is left is recording."""

    node_id = "nowhere"

    def append(self, node: object, held: object = ()) -> None:
        pass

    def constant(self, digest: str, tensor: Tensor) -> None:
        pass

    def drop(self, ref: object) -> None:
        pass

    def get(self, ref: object, pointer: object) -> None:
        pass

    def request(self, ref: object, reason: str, pointer: object) -> None:
        pass


def recording_alone() -> float:
    """Median seconds for an operation of a step, forward, backward and optimiser together."""
    recorder = Recorder(Nowhere())
    x = recorder.input_asset("images", 1, torch.Size([IMAGES, 1, 28, 28]), torch.float32)
    y = recorder.input_asset("labels", 1, torch.Size([IMAGES]), torch.int64)
    step = stepping(send_module(Net(), recorder), x, y, 64)
    taken = []
    for number in range(2 * STEPS):
        before, begin = recorder.tape.nodes, time.perf_counter()
        step(number)
        taken.append((time.perf_counter() - begin) / (recorder.tape.nodes - before))
    return statistics.median(taken[STEPS:])


def stepping(model: nn.Module, images: Any, labels: Any, batch: int) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(number: int) -> Tensor:
        first = number * batch % IMAGES
        optimizer.zero_grad()
        loss = F.nll_loss(model(images[first : first + batch]), labels[first : first + batch])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def plan(crew: Crew) -> Row:
    """A training step as a plan, from parameters to parameters, beside the same function here."""
    batch, model = 64, Net()
    images, labels = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
    names = [name for name, _ in model.named_parameters()]
    first = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]

    def step(x: Any, y: Any, *parameters: Any) -> tuple[Any, ...]:
        loss = F.nll_loss(torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,)), y)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            return loss, *(old - 0.01 * gradient for old, gradient in zip(parameters, gradients, strict=True))

    def steps(run: Callable[..., Any], x: Any, y: Any, parameters: Sequence[Any]) -> Any:
        for _ in range(STEPS):
            loss, *parameters = run(x, y, *parameters)
        return loss

    def here(x: Tensor, y: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        return step(x, y, *(each.detach().requires_grad_() for each in parameters))

    node, (x, y) = private(crew, images, labels)
    kept = grid.plan(step, example=(images, labels, *first), name="step").send(node)
    there = [grid.send(parameter.detach(), node) for parameter in first]
    assert torch.equal(steps(kept, x, y, there).get(), steps(here, images, labels, first)), "not the same"
    pairs = []
    for _ in range(ROUNDS):
        local = timed(lambda: steps(here, images, labels, first))
        pairs.append((timed(lambda: steps(kept, x, y, there).get()), local))
    ours, local = (seconds / STEPS * 1e3 for seconds in median_pair(pairs))
    return Row(f"a plan of a step of {len(kept.operations)} operations, batch {batch}, ms", ours, local, 1.05)


def private(crew: Crew, *tensors: Tensor) -> tuple[grid.Node, list[Any]]:
    """A scientist's node, and pointers there to tensors that an owner published, with every right that is needed."""
    owner, scientist = crew.hire("owner"), crew.hire("scientist")
    pointers = []
    first = None
    for tensor in tensors:
        records = grid.private_tensor(tensor, name=fresh("bench"), bounds=(0.0, 10.0), entities_of=first)
        name = records.send(owner).dataset
        first = first or name
        for right in ("train", "read"):
            owner.dataset(name).grant(scientist.user, right, reason="Benchmark.")
        pointers.append(scientist.dataset(name).pointer())
    return scientist, pointers


# --- columns --------------------------------------------------------------------------------------------------------


def columns(crew: Crew, folder: Path) -> list[Row]:
    values = torch.rand(ROWS, COLUMNS, dtype=torch.float64)
    save_file({"values": values}, folder / "columns.safetensors")
    _, (there,) = private(crew, values)
    here = load_file(folder / "columns.safetensors")["values"]

    def statistics_of(x: Any) -> Any:
        return torch.stack([x.sum(0), x.mean(0), x.std(0)])

    def local() -> Tensor:
        found: Tensor = statistics_of(here)
        return found

    def together() -> Tensor:
        found: Tensor = statistics_of(there).get()
        return found

    def one_by_one() -> Tensor:
        return torch.stack([pointer.get() for pointer in (there.sum(0), there.mean(0), there.std(0))])

    rows = []
    named = f"sum, mean, deviation of {COLUMNS} columns, {ROWS:,} rows"
    for ours, name, most in ((together, f"{named}, ms", 1.2), (one_by_one, "    taken one by one, ms", None)):
        assert torch.equal(ours(), local()), "not the same to the last bit"
        mine, other = median_pair([(timed(ours), timed(local)) for _ in range(15)])
        rows.append(Row(name, mine * 1e3, other * 1e3, most))
    return rows


# --- start-up -------------------------------------------------------------------------------------------------------


def start_up() -> list[Row]:
    def started(code: str) -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    rows = []
    for code in ("import gridclient", "from gridclient import *"):
        started(code)
        mine, other = median_pair([(started(code), started("import torch")) for _ in range(7)])
        rows.append(Row(f"{code!r}, beside 'import torch', s", mine, other, 1.2))
    return rows


# --- taking time ----------------------------------------------------------------------------------------------------


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def median_pair(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """The pair with the median ratio."""
    return sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
