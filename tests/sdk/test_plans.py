"""Plans on a live node: defined once, sent, run by name, and equal to torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import gridclient as grid
from gridclient.plans import Plan, StoredPlan
from tests.factories.crew import Crew, crew_of, fresh, sent
from tests.factories.grid import LiveGrid
from tests.factories.plans import batch, parameters, same, train_step


@pytest.fixture(scope="module")
def crew(grid: LiveGrid) -> Iterator[Crew]:
    with crew_of(grid.company) as found:
        yield found


def score(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """A score for each row.

    Higher is better.
    """
    return torch.sigmoid(x @ w + torch.arange(3.0)).clamp(0.1, 0.9)


X = torch.arange(12.0).reshape(4, 3)
W = torch.linspace(-1, 1, 9).reshape(3, 3)


def scored() -> Plan:
    return grid.plan(score, example=(X, W), name=fresh("score"))


def test_a_plan_that_was_sent_runs_twice_on_pointers_and_equals_torch(crew: Crew) -> None:
    node = crew.hire("scientist")
    plan = scored().send(node)
    x, w = sent(X, node), sent(W, node)
    wanted = score(X, W)
    assert torch.equal(plan(x, w).get(), wanted)
    assert torch.equal(plan(x, w).get(), wanted)
    assert torch.equal(plan(X, W), wanted)
    assert torch.equal((plan(x, w).sum(0) * 2).get(), wanted.sum(0) * 2)


def test_a_call_says_the_name_of_a_plan_and_not_its_operations(crew: Crew) -> None:
    node = crew.hire("scientist")
    state = [sent(each.detach(), node) for each in parameters()]
    x, y = (sent(each, node) for each in batch())
    plan = grid.plan(train_step, example=(*batch(), *parameters()), name=fresh("train-step")).send(node)
    state[0].sum().get()
    said: list[Any] = []
    original = node.append
    node.append = lambda sent, held=(): said.append(sent)  # type: ignore[assignment, misc]
    try:
        plan(x, y, *state)
    finally:
        node.append = original  # type: ignore[method-assign]
    (call,) = said
    assert call.op == "grid::plan"
    assert len(plan.operations) > 70


def test_a_plan_that_was_not_sent_runs_on_pointers_all_the_same(crew: Crew) -> None:
    node = crew.hire("scientist")
    assert torch.equal(scored()(sent(X, node), sent(W, node)).get(), score(X, W))


def test_ten_training_steps_by_a_plan_equal_ten_steps_here(crew: Crew) -> None:
    node = crew.hire("scientist")
    x, y = batch()
    plan = grid.plan(train_step, example=(x, y, *parameters()), name=fresh("train-step")).send(node)
    here = parameters()
    there = [sent(each.detach(), node) for each in here]
    local = [each.detach() for each in here]
    far_x, far_y = sent(x, node), sent(y, node)
    for _ in range(10):
        here = [*train_step(x, y, *here)]
        there = [*plan(far_x, far_y, *there)]
        local = [*plan(x, y, *local)]
        measured = [each[-2:] for each in (here, [each.get() for each in there[-2:]], local)]
        assert same(measured[1], measured[0]) and same(measured[2], measured[0])
        here, there, local = here[:-2], there[:-2], local[:-2]
        here = [each.detach().requires_grad_(number < 6) for number, each in enumerate(here)]
    taken = [each.get() for each in there]
    assert same(taken, [each.detach() for each in here])
    assert same(local, taken)


def test_a_model_becomes_a_plan_with_its_weights(crew: Crew) -> None:
    node = crew.hire("scientist")
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Sigmoid(), torch.nn.Linear(5, 2))
    plan = grid.plan(model, example=X, name=fresh("model")).send(node)
    with torch.no_grad():
        wanted = model(X)
        model[0].weight.zero_()  # what was sent stays what it was
    assert torch.equal(plan(sent(X, node)).get(), wanted)


def test_another_session_runs_a_plan_by_its_name(crew: Crew) -> None:
    author = crew.hire("scientist")
    plan = scored().send(author)
    again = crew.hire("scientist")
    stored = again.plan(plan.name, download=False)
    assert isinstance(stored, StoredPlan)
    assert stored.owner == author.user
    assert torch.equal(stored(sent(X, again), sent(W, again)).get(), score(X, W))


def test_the_list_tells_what_a_plan_takes(crew: Crew) -> None:
    node = crew.hire("scientist")
    plan = scored().send(node)
    found = {each.name: each for each in node.plans()}[plan.name]
    assert [(each.name, each.dtype, each.shape) for each in found.inputs] == [
        ("x", "float32", [4, 3]),
        ("w", "float32", [3, 3]),
    ]
    assert found.description == "A score for each row."
    assert (found.sha256, found.nbytes, found.allow_download) == (plan.sha256, plan.nbytes, False)


def test_only_a_plan_that_allows_it_is_copied_by_others(crew: Crew) -> None:
    author, other = crew.hire("scientist"), crew.hire("scientist")
    closed, open_ = scored().send(author), scored().send(author, allow_download=True)
    with pytest.raises(grid.NotPermittedError):
        other.plan(closed.name)
    copy, mine = other.plan(open_.name), author.plan(closed.name)
    assert isinstance(copy, Plan) and isinstance(mine, Plan)
    assert (copy.sha256, mine.sha256) == (open_.sha256, closed.sha256)
    assert torch.equal(copy(X, W), score(X, W))
    assert torch.equal(copy(sent(X, other), sent(W, other)).get(), score(X, W))


def test_only_its_owner_deletes_a_plan(crew: Crew) -> None:
    author, other = crew.hire("scientist"), crew.hire("scientist")
    plan = scored().send(author)
    with pytest.raises(grid.NotPermittedError):
        other.plan(plan.name, download=False).delete()  # type: ignore[union-attr]
    author.plan(plan.name, download=False).delete()  # type: ignore[union-attr]
    with pytest.raises(grid.NotFoundError):
        other.plan(plan.name, download=False)


def test_a_plan_that_was_deleted_is_not_found_by_a_new_session(crew: Crew) -> None:
    author, other = crew.hire("scientist"), crew.hire("scientist")
    plan = scored().send(author)
    stored = other.plan(plan.name, download=False)
    author.plan(plan.name, download=False).delete()  # type: ignore[union-attr]
    with pytest.raises(grid.NotFoundError, match="no such plan"):
        stored(sent(X, other), sent(W, other)).get()


def test_sending_again_replaces_ones_own_plan_and_nobody_elses(crew: Crew) -> None:
    author, other = crew.hire("scientist"), crew.hire("scientist")
    first = scored().send(author)
    second = grid.plan(lambda x: x * 2, example=X, name=first.name).send(author)
    assert author.plan(first.name).sha256 == second.sha256
    with pytest.raises(grid.ConflictError):
        grid.plan(lambda x: x * 3, example=X, name=first.name).send(other)


def test_a_plan_is_saved_and_loaded(tmp_path: Path) -> None:
    plan = scored()
    plan.save(tmp_path / "score.plan")
    loaded = Plan.load(tmp_path / "score.plan")
    assert loaded.sha256 == plan.sha256
    assert torch.equal(loaded(X, W), score(X, W))


def test_a_file_that_is_no_plan_says_so(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(grid.InvalidInputError):
        Plan.load(tmp_path / "x")


def test_a_call_with_another_shape_names_the_input() -> None:
    with pytest.raises(grid.ShapeError, match="w of shape"):
        scored()(X, W[:2])


def test_no_gradient_is_lost_without_a_word(crew: Crew) -> None:
    node = crew.hire("scientist")
    plan = scored()
    for x, w in ((X, W.clone()), (sent(X, node), sent(W, node))):
        with pytest.raises(grid.OperationNotAllowedError, match="Gradients do not pass"):
            plan(x, w.requires_grad_()).sum().backward()


def test_a_write_into_an_input_is_returned_or_refused() -> None:
    def forgotten(x: torch.Tensor) -> torch.Tensor:
        total = x.sum()
        x.add_(1)
        return total

    def returned(x: torch.Tensor) -> torch.Tensor:
        return x.add_(1)

    with pytest.raises(grid.OperationNotAllowedError, match="its input x"):
        grid.plan(forgotten, example=X)
    mine = X.clone()
    assert torch.equal(grid.plan(returned, example=X)(mine), X + 1)
    assert torch.equal(mine, X)


def test_a_value_asked_for_while_a_plan_is_recorded_is_refused() -> None:
    for asks in (lambda x: x * float(x.sum()), lambda x: x.get(), lambda x: x if x.sum() > 0 else -x):
        with pytest.raises(grid.RemoteValueError):
            grid.plan(asks, example=X, name="asks")


def test_a_plan_inside_of_a_plan_is_part_of_it(crew: Crew) -> None:
    node = crew.hire("scientist")
    inner = scored()

    @grid.plan(example=(X, W), name=fresh("outer"))
    def outer(x: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return inner(x, w) + 1, x

    outer.send(node)
    x, w = sent(X, node), sent(W, node)
    found = outer(x, w)
    assert same([each.get() for each in found], [score(X, W) + 1, X])
    assert same(outer(X, W), [score(X, W) + 1, X])


def test_the_queue_reads_and_approves_the_operations_of_a_plan(crew: Crew) -> None:
    owner, scientist = crew.hire("owner"), crew.hire("scientist")
    values = torch.arange(60.0, dtype=torch.float64).reshape(20, 3)
    title = fresh("plan births")
    grid.private_tensor(values, bounds=(0.0, 100.0)).describe(title).send(owner)
    births = scientist.search(title)[0]

    def spread(x: torch.Tensor) -> torch.Tensor:
        return x.amax(0) - x.amin(0)

    plan = grid.plan(spread, example=values, name=fresh("spread")).send(scientist)
    by_hand = spread(births).request("By hand")
    request = plan(births).request("By the plan")
    assert request.words == by_hand.words
    plan_on_node = scientist.plan(plan.name, download=False)
    assert isinstance(plan_on_node, StoredPlan)
    plan_on_node.delete()  # the request holds what it runs
    owner.requests(state="submitted")
    for each in owner.requests(state="submitted"):
        each.approve("Fine.")
    assert torch.equal(request.wait(20).get(), spread(values))


def test_random_operations_of_a_plan_are_drawn_anew_in_every_call(crew: Crew) -> None:
    node = crew.hire("scientist")
    plan = grid.plan(lambda x: x + torch.rand_like(x), example=X, name=fresh("noisy")).send(node)
    before = torch.get_rng_state()
    try:
        torch.manual_seed(3)
        x = sent(X, node)
        there = [plan(x).get(), plan(x).get()]
        torch.manual_seed(3)
        here = [plan(X), plan(X)]
    finally:
        torch.set_rng_state(before)
    assert same(there, here)
    assert not torch.equal(there[0], there[1])
