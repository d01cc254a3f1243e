"""What counts as training, from the program alone: a state that training made, and the losses of a module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file

from apps.compute.messages import Evaluate, Export, Exported, Failed, Load, Loaded, Proposal, Propose, State, Value
from apps.compute.training import MAX_MODULES, NO_MARKS, Kind, Training, is_loss
from gridclient.program.graph import Dtype, Node, Ref, program_hashes
from gridclient.wire.errors import InvalidInputError, LimitExceededError
from tests.factories.programs import Recorded, tensor_asset

ROWS = torch.tensor([[1.0, 2.0, 1.0], [0.5, -1.0, 0.0], [2.0, 0.25, 1.0], [-1.0, 1.5, 0.0]])
MODULE = "6f1d"


class Lesson(Recorded):
    """A linear model on private rows, written node by node as autograd records it."""

    def __init__(self, folder: Path, *, module: str = MODULE) -> None:
        super().__init__()
        self.module = module
        self.x = self.bind(tensor_asset(folder, ROWS, columns=["a", "b", "label"]))
        self.features = self("aten::slice.Tensor", self.x, 1, 0, 2)
        self.label = self("aten::slice.Tensor", self.x, 1, 2, 3)
        self.weight = self.sent("weight", torch.tensor([[0.5], [-0.5]]))
        self.bias = self.sent("bias", torch.zeros(1))

    def sent(self, name: str, value: torch.Tensor, module: str = "", **trainable: Any) -> Ref:
        return self("grid::parameter", self.constant(value), module or self.module, name, **trainable)

    def error(self, weight: Ref, bias: Ref) -> Ref:
        """[4, 1]: what the model gets wrong for each row."""
        return self("aten::sub.Tensor", self("aten::add.Tensor", self("aten::mm", self.features, weight), bias),
                    self.label)  # fmt: skip

    def gradients(self, error: Ref, loss: Ref) -> tuple[Ref, Ref]:
        root = self("aten::expand", self("aten::ones_like", loss), [4, 1])
        slope = self("aten::mul.Tensor", self("aten::div.Tensor", root, 4), self("aten::mul.Tensor", error, 2.0))
        return (
            self("aten::mm", self("aten::t", self.features), slope),
            self("aten::view", self("aten::sum.dim_IntList", slope, [0], True), [1]),
        )

    def loss_of(self, error: Ref) -> Ref:
        return self("aten::mean", self("aten::pow.Tensor_Scalar", error, 2))

    def step(self, weight: Ref, bias: Ref) -> tuple[Ref, Ref, Ref]:
        """One step of gradient descent: weight, bias, loss."""
        error = self.error(weight, bias)
        loss = self.loss_of(error)
        by_weight, by_bias = self.gradients(error, loss)
        return self.less(weight, by_weight), self.less(bias, by_bias), loss

    def less(self, value: Ref, slope: Ref) -> Ref:
        return self("aten::sub.Tensor", value, self("aten::mul.Tensor", slope, 0.1))

    def state(self, module: str = "", /, **values: Ref) -> Proposal:
        reply = self.session.handle(Propose(9, State(module or self.module, list(values), list(values.values()))), 0)
        if isinstance(reply, Failed):
            raise reply.error()
        assert isinstance(reply, Proposal)
        return reply


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    return Lesson(tmp_path)


def test_a_trained_state_and_its_losses_are_recognised(lesson: Lesson) -> None:
    weight, bias = lesson.weight, lesson.bias
    for _ in range(3):
        weight, bias, loss = lesson.step(weight, bias)
        assert lesson.propose(loss).trained and lesson.propose(loss).untrained == ""
        found = lesson.state(weight=weight, bias=bias)
        assert (found.trained, found.untrained, found.label, found.kind) == (True, "", "tainted", "state")
        assert (found.shape, found.nbytes, found.value) == ([2, 3], 12, None)
        assert [(entry.dataset, entry.columns) for entry in found.inputs] == [("births", ["a", "b", "label"])]
        assert found.assets == [("births", 1, "values")]


def test_the_state_is_what_local_torch_trains(lesson: Lesson, tmp_path: Path) -> None:
    weight, bias = lesson.weight, lesson.bias
    local = [torch.tensor([[0.5], [-0.5]], requires_grad=True), torch.zeros(1, requires_grad=True)]
    with torch.enable_grad():
        for _ in range(3):
            weight, bias, _ = lesson.step(weight, bias)
            local_loss = ((ROWS[:, :2] @ local[0] + local[1] - ROWS[:, 2:]) ** 2).mean()
            slopes = torch.autograd.grad(local_loss, local)
            local = [
                (value - 0.1 * slope).detach().requires_grad_() for value, slope in zip(local, slopes, strict=True)
            ]
    path = tmp_path / "state"
    for _ in range(2):  # asked again, it is there already
        reply = lesson.session.handle(Evaluate(1, State(MODULE, ["b", "w"], [bias, weight]), str(path)), 0)
        assert isinstance(reply, Value) and reply.kind == "state" and reply.data is not None
        assert reply.header.nbytes == len(reply.data) == reply.header.shape[0] and not path.exists()
        found = load(reply.data)
        torch.testing.assert_close(found, {"w": local[0].detach(), "b": local[1].detach()})


def test_a_long_state_is_written_to_the_file_asked_for_and_views_of_one_value_stay_apart(tmp_path: Path) -> None:
    recorded = Recorded()
    value = torch.arange(40_000, dtype=torch.float32).reshape(200, 200)
    whole = recorded.constant(value)
    state = State("ab", ["whole", "turned", "none"], [whole, recorded("aten::t", whole), recorded.constant(value[:0])])
    path = tmp_path / "state"
    reply = recorded.session.handle(Evaluate(1, state, str(path)), 0)
    assert isinstance(reply, Value) and reply.data is None and path.stat().st_size == reply.header.nbytes
    assert path.stat().st_mode & 0o777 == 0o600
    found = load_file(path)
    assert torch.equal(found["whole"], value) and torch.equal(found["turned"], value.T) and found["none"].numel() == 0


def test_what_is_computed_on_the_way_is_neither_a_state_nor_a_loss(lesson: Lesson) -> None:
    error = lesson.error(lesson.weight, lesson.bias)
    loss = lesson.loss_of(error)
    by_weight, by_bias = lesson.gradients(error, loss)
    rows = lesson("aten::pow.Tensor_Scalar", error, 2)
    momentum = lesson("aten::add.Tensor", by_weight, lesson("aten::mul.Tensor", by_weight, 0.9))
    whole = lesson("aten::_to_copy", loss, dtype=Dtype("int64"))
    one = lesson("aten::view", loss, [1])
    for value in (error, rows, by_weight, by_bias, momentum, whole, one):
        found = lesson.propose(value)
        assert not found.trained and "grid.get(module)" in found.untrained
    for value in (lesson("aten::mean", lesson.features), lesson.x):
        assert (lesson.propose(value).trained, lesson.propose(value).untrained) == (False, "")


def test_a_state_whose_parameters_owe_nothing_to_what_was_sent_is_none(lesson: Lesson) -> None:
    weight, bias, loss = lesson.step(lesson.weight, lesson.bias)
    rows = lesson("aten::slice.Tensor", lesson.features, 0, 0, 2)
    copied = lesson("aten::slice.Tensor", rows, 1, 0, 1)
    root = lesson("aten::ones_like", loss)
    other = Lesson.sent(lesson, "weight", torch.ones(2, 1), module="another")
    stepped = lesson("aten::sub.Tensor", other, lesson("aten::mul.Tensor", lesson("aten::mean", copied), root))
    cases: list[tuple[dict[str, Ref], str]] = [
        ({"weight": copied, "bias": bias}, "'weight' does not depend on the value that was sent"),
        ({"weight": lesson("aten::add.Tensor", copied, root), "bias": bias}, "'weight' does not depend on the value"),
        ({"weight": lesson("aten::add.Tensor", copied, lesson.weight), "bias": bias}, "a gradient of a loss"),
        ({"weight": lesson("aten::view", weight, [1, 2]), "bias": bias}, "was sent with shape [2, 1]"),
        ({"weight": lesson("aten::_to_copy", weight, dtype=Dtype("float64")), "bias": bias}, "of float32"),
        ({"weight": weight}, "'bias' is missing"),
        ({"weight": weight, "bias": bias, "more": weight}, "'more' was not sent"),
        ({"weight": weight, "more": bias}, "'more' was not sent"),
        ({"weight": stepped, "bias": bias}, "'weight' does not depend on the value that was sent"),
    ]
    for values, why in cases:
        found = lesson.state(**values)
        assert not found.trained and why in found.untrained, found.untrained
    assert "no module with this id" in lesson.state("0000", weight=weight, bias=bias).untrained
    assert "'bias' was not sent" in lesson.state("another", weight=weight, bias=bias).untrained
    assert lesson.state(weight=weight, bias=bias).trained


def test_a_loss_without_the_parameters_begins_no_gradient(lesson: Lesson) -> None:
    for name, loss in (
        ("no parameter", lesson("aten::mean", lesson.label)),
        ("an axis", lesson("aten::mean.dim", lesson.error(lesson.weight, lesson.bias), [0])),
        ("no number", lesson("aten::_to_copy", lesson.loss_of(lesson.error(lesson.weight, lesson.bias)),
                             dtype=Dtype("int64"))),
    ):  # fmt: skip
        root = lesson("aten::_to_copy", lesson("aten::ones_like", loss), dtype=Dtype("float32"))
        slope = lesson("aten::mul.Tensor", lesson("aten::mean", lesson.features), root)
        weight, bias = lesson.less(lesson.weight, slope), lesson.less(lesson.bias, slope)
        assert "does not depend on a gradient" in lesson.state(weight=weight, bias=bias).untrained, name


def test_a_value_that_lends_its_shape_alone_is_no_evidence(lesson: Lesson) -> None:
    weight, bias, _ = lesson.step(lesson.weight, lesson.bias)
    lent = lesson("aten::mul.Tensor", lesson("aten::zeros_like", weight), lesson("aten::mean", lesson.features))
    assert "the value that was sent" in lesson.state(weight=lent, bias=bias).untrained
    kept = lesson("aten::add.Tensor", lesson.weight, lent)
    assert "a gradient of a loss" in lesson.state(weight=kept, bias=bias).untrained


def test_buffers_need_no_gradient_but_a_module_without_training_is_no_model(lesson: Lesson) -> None:
    mean = lesson.sent("mean", torch.zeros(2), trainable=False)
    count = lesson.sent("count", torch.tensor(0), trainable=False)
    seen = lesson("aten::add.Tensor", lesson("aten::mul.Tensor", mean, 0.9), lesson("aten::mean.dim", lesson.features,
                  [0]))  # fmt: skip
    more = lesson("aten::add.Tensor", count, 1)
    weight, bias, _ = lesson.step(lesson.weight, lesson.bias)
    assert lesson.state(weight=weight, bias=bias, mean=seen, count=more).trained
    copied = lesson("aten::mean.dim", lesson.features, [0])
    found = lesson.state(weight=weight, bias=bias, mean=copied, count=more)
    assert "'mean' does not depend on the value that was sent" in found.untrained
    # A layer that was not used, or frozen, is as it was sent.
    assert lesson.state(weight=weight, bias=lesson.bias, mean=seen, count=more).trained
    untouched = lesson.state(weight=lesson.weight, bias=lesson.bias, mean=seen, count=more)
    assert not untouched.trained and "no trainable parameter of it was trained" in untouched.untrained


def test_a_public_state_needs_no_evidence(lesson: Lesson) -> None:
    doubled = lesson("aten::mul.Tensor", lesson.weight, 2.0)
    found = lesson.state(weight=doubled, bias=lesson.bias)
    assert (found.label, found.inputs, found.trained, found.untrained) == ("public", [], False, "")


def test_a_parameter_is_public_when_it_is_sent(lesson: Lesson) -> None:
    private = lesson("grid::parameter", lesson.features, MODULE, "private")
    with pytest.raises(InvalidInputError, match="public tensor when it is sent"):
        lesson.propose(private)
    table = lesson("grid::parameter", lesson.x, MODULE, "private")
    with pytest.raises(InvalidInputError):
        lesson.propose(table)
    assert torch.equal(lesson.value(lesson.weight), torch.tensor([[0.5], [-0.5]]))


@pytest.mark.parametrize(
    "args",
    [
        ["", "w"],
        ["ab", ""],
        ["a" * 65, "w"],
        ["ab", "w" * 201],
        ["ab", "w\n"],
        ["ab", "w\u202e"],
        ["ab"],
        [1, 2],
        ["ab", "__metadata__"],
    ],
)
def test_a_parameter_is_named(lesson: Lesson, args: list[Any]) -> None:
    with pytest.raises(InvalidInputError):
        lesson.propose(lesson("grid::parameter", lesson.constant(torch.zeros(2)), *args))


def test_a_name_is_sent_once_as_one_thing(lesson: Lesson) -> None:
    again = lesson.sent("weight", torch.ones(2, 1))
    assert lesson.propose(again).label == "public"
    others: list[tuple[torch.Tensor, dict[str, Any]]] = [
        (torch.ones(1, 2), {}),
        (torch.ones(2, 1), {"trainable": False}),
    ]
    for value, options in others:
        with pytest.raises(InvalidInputError, match="sent before"):
            lesson.propose(lesson.sent("weight", value, **options))


@pytest.mark.parametrize(
    ("names", "count"), [([], 0), (["weight", "weight"], 2), (["weight"], 2), (["weight", "bias"], 1), (["a\n"], 1)]
)
def test_a_state_that_is_not_named_well_is_refused(lesson: Lesson, names: list[str], count: int) -> None:
    state = State(MODULE, names, [lesson.weight, lesson.bias][:count])
    for question in (Propose(1, state), Evaluate(2, state, "/dev/null")):
        reply = lesson.session.handle(question, 0)
        assert isinstance(reply, Failed) and reply.code == "invalid_input"


def test_the_hash_of_a_program_does_not_hang_on_the_random_id_of_a_module(tmp_path: Path) -> None:
    hashes = set()
    for module in ("6f1d", "07ab"):
        lesson = Lesson(tmp_path, module=module)
        weight, bias, _ = lesson.step(lesson.weight, lesson.bias)
        hashes.add(lesson.state(weight=weight, bias=bias).program_hash)
    assert len(hashes) == 1
    named = [Node(0, "grid::constant", ["00"]), Node(1, "grid::parameter", [Ref(0), "ab", "w"]),
             Node(2, "grid::parameter", [Ref(0), "ab", "v"])]  # fmt: skip
    assert len(set(program_hashes(named).values())) == 3


def test_a_reviewer_reads_what_is_in_a_state_and_whether_training_made_it(lesson: Lesson, tmp_path: Path) -> None:
    weight, bias, _ = lesson.step(lesson.weight, lesson.bias)
    copied = lesson("aten::slice.Tensor", lesson("aten::slice.Tensor", lesson.features, 0, 0, 2), 1, 0, 1)
    texts = []
    for value in (weight, copied):
        state = State(MODULE, ["weight", "bias"], [value, bias])
        reply = lesson.session.handle(Export(1, state, str(tmp_path / "constants"), {"births": "february"}), 0)
        assert isinstance(reply, Exported)
        texts.append(reply.words)
        again = Recorded()
        again.bind(tensor_asset(tmp_path, ROWS, columns=["a", "b", "label"]))
        fresh = again.session.__class__(again.session.limits)
        fresh.program.judge.bind(tensor_asset(tmp_path, ROWS, columns=["a", "b", "label"]), ("values",))
        loaded = fresh.handle(Load(1, reply.program, reply.constants), 0)
        assert isinstance(loaded, Loaded) and len(loaded.results) == 2
        assert loaded.program_hash == lesson.state(weight=value, bias=bias).program_hash
    trained, stolen = texts
    assert trained.startswith("The state of a module: 2 tensors with 3 numbers in all, computed from february (")
    assert "Training made it" in trained and "does not bound what it tells" in trained
    assert "“weight”: 2 x 1 numbers, step " in trained and "sent as “weight” of module “6f1d”" in trained
    assert "It is not what training made of the module: 'weight' does not depend on the value" in stolen
    assert "unmodified" in stolen


def test_many_steps_cost_no_more_marks_than_one(tmp_path: Path) -> None:
    lesson = Lesson(tmp_path)
    weight, bias = lesson.weight, lesson.bias
    for _ in range(50):
        weight, bias, _ = lesson.step(weight, bias)
    marks = {id(entry.marks) for entry in lesson.session.program.entries.values()}
    assert len(marks) < 10


def test_a_value_depends_on_so_many_modules_only() -> None:
    training = Training()
    kind = Kind((), "float32", False)
    marks = NO_MARKS
    for number in range(MAX_MODULES):
        marks = training.sent(marks, f"module {number}", "w", kind, True)
    assert is_loss(kind, marks)
    with pytest.raises(LimitExceededError):
        training.sent(marks, "one more", "w", kind, True)
