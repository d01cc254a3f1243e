"""Programs in a worker: what is admitted, how it is labelled, what comes out."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from apps.compute.messages import (
    Append,
    Closed,
    Evaluate,
    Export,
    Exported,
    Forget,
    Limits,
    Load,
    Loaded,
    PutConstant,
    Value,
)
from gridclient.program.graph import Dtype, Node, Ref, decode_program, program_hashes, result_hash, tensor_digest
from gridclient.wire.errors import (
    GridError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    OperationNotAllowedError,
    ShapeError,
)
from gridclient.wire.messages import TensorHeader
from tests.factories.programs import Recorded, scalar, table_asset, tensor_asset

VALUES = torch.tensor([[3.0, 50.0], [2.5, 48.0], [4.0, 52.0], [3.5, 51.0]])


@pytest.fixture
def births(tmp_path: Path) -> tuple[Recorded, Ref]:
    recorded = Recorded()
    return recorded, recorded.bind(tensor_asset(tmp_path, VALUES, columns=["weight", "height"]))


def closed(recorded: Recorded, ref: Ref) -> tuple[str, list[str]] | None:
    found = recorded.propose(ref).closed
    return None if found is None else (found.kind, found.columns)


# --- labels and the closed set ---


def test_a_sum_of_a_declared_column_is_recognised(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    column = recorded("aten::select.int", x, 1, 0)
    proposal = recorded.propose(recorded("aten::sum", column))
    assert (proposal.label, proposal.closed) == ("agg", Closed("sum", "births", 1, ["weight"]))
    assert [(i.dataset, i.version, i.columns) for i in proposal.inputs] == [("births", 1, ["weight"])]
    assert proposal.value is None


def test_the_ways_to_write_a_mean_are_the_same_answer(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    both = ("mean", ["weight", "height"])
    assert closed(recorded, recorded("aten::mean.dim", x, [0])) == both
    assert closed(recorded, recorded("aten::mean.dim", x, [-2], True)) == both
    turned = recorded("aten::t", x)
    assert closed(recorded, recorded("aten::mean.dim", turned, [1])) == both
    assert (
        closed(recorded, recorded("aten::mean.dim", recorded("aten::_to_copy", x, dtype=Dtype("float64")), [0])) == both
    )
    whole = recorded("aten::slice.Tensor", x, 0, 0, 2**63 - 1)
    assert closed(recorded, recorded("aten::mean.dim", whole, [0])) == both
    last = recorded("aten::slice.Tensor", x, 1, 1, 2)
    assert closed(recorded, recorded("aten::sum", last)) == ("sum", ["height"])
    assert closed(recorded, recorded("grid::count", last)) == ("count", [])


@pytest.mark.parametrize(
    "steps",
    [
        [("aten::add.Tensor", 1.0), ("aten::sum.dim_IntList", [0])],  # arithmetic on rows
        [("aten::slice.Tensor", 0, 1, 4), ("aten::sum.dim_IntList", [0])],  # all but one
        [("aten::sum",)],  # weight and height added up
        [("aten::_to_copy", {"dtype": Dtype("float16")}), ("aten::sum.dim_IntList", [0])],  # rounds each row
        [("aten::sum.dim_IntList", [0], {"dtype": Dtype("int64")})],  # cuts each row
        [("aten::flip", [0]), ("aten::sum.dim_IntList", [0])],
    ],
)
def test_what_is_not_the_closed_set_is_not_taken_for_it(
    births: tuple[Recorded, Ref], steps: list[tuple[Any, ...]]
) -> None:
    """Differencing: 85 sums of |x - t| would give back every row (attacks 10 and 26)."""
    recorded, ref = births
    for op, *args in steps:
        kwargs = args.pop() if args and isinstance(args[-1], dict) else {}
        ref = recorded(op, ref, *args, **kwargs)
    proposal = recorded.propose(ref)
    assert proposal.label == "agg"
    assert proposal.closed is None


def test_a_one_hot_product_is_no_member_of_the_closed_set(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    one = recorded.constant(torch.tensor([0.0, 0.0, 1.0, 0.0]))
    ref = recorded("aten::mv", recorded("aten::t", x), one)
    assert (recorded.propose(ref).label, closed(recorded, ref)) == ("agg", None)


def test_a_row_by_its_position_is_tainted(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    assert recorded.propose(recorded("aten::select.int", x, 0, 2)).label == "tainted"


def test_images_and_labels_of_one_sequence_pair_and_others_do_not(tmp_path: Path) -> None:
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path / "x", VALUES, dataset="x", sequence="s"))
    y = recorded.bind(tensor_asset(tmp_path / "y", VALUES, dataset="y", sequence="s"))
    z = recorded.bind(tensor_asset(tmp_path / "z", VALUES, dataset="z"))
    assert recorded.propose(recorded("aten::add.Tensor", x, y)).label == "rows"
    assert recorded.propose(recorded("aten::add.Tensor", x, z)).label == "tainted"
    chosen = recorded.constant(torch.tensor([1, 0]))
    first, second = (recorded("aten::index_select", value, 0, chosen) for value in (x, y))
    assert recorded.propose(recorded("aten::add.Tensor", first, second)).label == "rows"
    other = recorded("aten::index_select", y, 0, recorded.constant(torch.tensor([0, 1])))
    assert recorded.propose(recorded("aten::add.Tensor", first, other)).label == "tainted"


def test_mock_data_are_public(tmp_path: Path) -> None:
    recorded = Recorded()
    mock = recorded.bind(tensor_asset(tmp_path, VALUES), "mock")
    proposal = recorded.propose(recorded("aten::sum", mock))
    assert proposal.label == "public"
    assert scalar(proposal.value or b"") == 8.0
    with pytest.raises(NotFoundError):
        recorded.propose(recorded("grid::asset", "births", 1, "values"))


# --- private n ---


def test_null_records_count_nobody_after_any_map(tmp_path: Path) -> None:
    """exp(0) = 1: counted before the mask, padding would be people."""
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])
    recorded = Recorded()
    x = recorded.bind(tensor_asset(tmp_path, values, columns=["a", "b"], presence=[True, True, False]))
    grown = recorded("aten::exp", x)
    assert torch.allclose(recorded.value(recorded("aten::sum.dim_IntList", grown, [0])), values[:2].exp().sum(0))
    lost = recorded("aten::sum", recorded("aten::log", x))
    assert torch.allclose(recorded.value(lost), values[:2].log().sum())
    assert torch.allclose(recorded.value(recorded("aten::mean.dim", x, [0])), values[:2].mean(0))
    assert closed(recorded, recorded("aten::mean.dim", x, [0])) == ("mean", ["a", "b"])
    assert recorded.value(recorded("grid::count", x)).item() == 2
    assert recorded.propose(x).shape == [3, 2]
    for op, *args in (("aten::max",), ("aten::slice.Tensor", 0, 0, 2), ("aten::select.int", 0, 0), ("aten::sort", 0)):
        outputs = 2 if op == "aten::sort" else 1
        with pytest.raises(OperationNotAllowedError, match=op):
            recorded.propose(recorded(op, x, *args, outputs=outputs))


def test_columns_of_a_table(tmp_path: Path) -> None:
    recorded = Recorded()
    spec = table_asset(
        tmp_path,
        {"age": [30.0, 40.0, 0.0], "kind": [1, 0, 0]},
        {"age": "number", "kind": "category"},
        [True, True, False],
    )
    table = recorded.bind(spec)
    age = recorded("grid::column", table, "age")
    assert closed(recorded, recorded("aten::mean", age)) == ("mean", ["age"])
    assert recorded.value(recorded("aten::mean", age)).item() == 35.0
    assert recorded.propose(recorded("grid::column", table, "kind")).dtype == "int64"
    both = recorded.propose(recorded("grid::columns", table, ["kind", "age"]))
    assert (both.shape, both.dtype, both.label) == ([3, 2], "float64", "rows")
    assert recorded.value(recorded("grid::count", table)).item() == 2
    assert recorded.propose(table).kind == "table"
    reply = recorded.session.handle(Evaluate(1, table, str(tmp_path / "copy")), 0)
    assert isinstance(reply, Value)
    copied = pa.ipc.open_stream(reply.data).read_all()
    assert copied.to_pydict() == {
        "age": [30.0, 40.0, None],
        "kind": ["yes", "no", None],
    }  # as long as everybody knows it to be
    for wrong in (("grid::column", table, "weight"), ("aten::neg", table), ("grid::columns", table, ["age", "age"])):
        with pytest.raises(InvalidInputError):
            recorded.propose(recorded(*wrong))


# --- hostile programs ---


@pytest.mark.parametrize(
    ("op", "args", "kwargs", "error"),
    [
        ("os::system", ["ls"], {}, OperationNotAllowedError),
        ("aten::add_.Tensor", [Ref(0), 1], {}, OperationNotAllowedError),
        ("aten::as_strided", [Ref(0), [4], [1]], {}, OperationNotAllowedError),
        ("aten::sum.__class__", [Ref(0)], {}, OperationNotAllowedError),
        ("aten::add.Tensor", [Ref(0)], {}, InvalidInputError),
        ("aten::add.Tensor", [Ref(0), 1, 2, 3], {}, InvalidInputError),
        ("aten::add.Tensor", [Ref(0), "one"], {}, InvalidInputError),
        ("aten::add.Tensor", [Ref(0), 2**64], {}, InvalidInputError),
        ("aten::add.Tensor", [Ref(0), 1], {"out": Ref(0)}, InvalidInputError),
        ("aten::add.Tensor", [Ref(0), 1], {"other": Ref(0)}, InvalidInputError),
        ("aten::add.Tensor", [Ref(5), 1], {}, InvalidInputError),
        ("aten::add.Tensor", [Ref(0, 3), 1], {}, InvalidInputError),
        ("aten::neg", [[[[1]]]], {}, InvalidInputError),
        ("aten::neg", [{"a": 1}], {}, InvalidInputError),
        ("aten::_to_copy", [Ref(0)], {"dtype": Dtype("complex64")}, InvalidInputError),
        ("aten::_to_copy", [Ref(0)], {"dtype": "float32"}, InvalidInputError),
        ("aten::_to_copy", [Ref(0)], {"device": "cuda"}, InvalidInputError),
        ("aten::clone", [Ref(0)], {"memory_format": "channels_last"}, InvalidInputError),
        ("aten::sum.dim_IntList", [Ref(0), list(range(1000))], {}, InvalidInputError),
        ("aten::sum.dim_IntList", [Ref(0), [7]], {}, ShapeError),
        ("aten::sum.dim_IntList", [Ref(0), [True]], {}, InvalidInputError),
        ("aten::mm", [Ref(0), Ref(0)], {}, ShapeError),
        ("aten::view", [Ref(0), [2**62, -1]], {}, InvalidInputError),
        ("aten::select.int", [Ref(0), 0, 99], {}, ShapeError),
        ("aten::cat", [[], 0], {}, InvalidInputError),
        ("aten::cat", [[Ref(0)] * 5000, 0], {}, InvalidInputError),
        ("aten::bitwise_not", [Ref(0)], {}, GridError),
        ("aten::expand", [Ref(0), [2**40, 4, 2]], {}, LimitExceededError),
        ("aten::expand", [Ref(0), [2**40, 2**40, 4, 2]], {}, GridError),
        ("grid::count", [3], {}, InvalidInputError),
        ("grid::constant", ["ab"], {}, InvalidInputError),
        ("grid::constant", [], {}, InvalidInputError),
        ("grid::asset", ["births", 1, "../../etc/passwd"], {}, InvalidInputError),
        ("grid::asset", ["births", 2, "values"], {}, NotFoundError),
        ("grid::asset", [None], {}, InvalidInputError),
        ("grid::column", [Ref(0), "weight"], {}, InvalidInputError),
    ],
)
def test_a_hostile_node_is_refused_by_a_typed_error(
    births: tuple[Recorded, Ref], op: str, args: list[Any], kwargs: dict[str, Any], error: type[GridError]
) -> None:
    recorded, x = births
    wrong = recorded(op, *args, line="attack.py:1", **kwargs)
    after = recorded("aten::neg", wrong, line="attack.py:2")
    with pytest.raises(error) as caught:
        recorded.propose(after)
    assert "Traceback" not in caught.value.message
    assert caught.value.details["line"] == "attack.py:1"
    assert recorded.propose(recorded("aten::neg", x)).label == "rows"  # the session goes on


def test_ids_that_do_not_grow_end_the_program(births: tuple[Recorded, Ref]) -> None:
    recorded, x = births
    recorded.session.handle(Append([Node(0, "aten::neg", [Ref(0)])]), 10)
    with pytest.raises(InvalidInputError, match="only grow"):
        recorded.propose(recorded("aten::neg", x))
    assert recorded.propose(x).label == "rows"


def test_a_header_of_a_trillion_empty_columns_is_refused(births: tuple[Recorded, Ref]) -> None:
    recorded, _ = births
    digest = tensor_digest("float32", [0, 2**40], b"")
    recorded.session.handle(PutConstant(digest, TensorHeader("float32", [0, 2**40], 0), b""), 0)
    with pytest.raises(LimitExceededError):
        recorded.propose(recorded("grid::constant", digest))


def test_a_constant_is_what_its_digest_says(births: tuple[Recorded, Ref]) -> None:
    recorded, _ = births
    recorded.session.handle(PutConstant("ab", TensorHeader("float32", [1], 4), bytes(4)), 0)
    with pytest.raises(InvalidInputError, match="digest"):
        recorded.propose(recorded("grid::constant", "ab"))


def test_cost_is_known_before_anything_runs() -> None:
    recorded = Recorded(Limits(flops=10**6, value=2**20, memory=2**20))
    big = recorded("aten::expand", recorded.constant(torch.ones(1, 1)), [400, 400])
    with pytest.raises(LimitExceededError) as caught:
        recorded.propose(recorded("aten::mm", big, big))
    assert caught.value.details["limit"] == 10**6
    with pytest.raises(LimitExceededError, match="memory"):
        recorded.propose(recorded("aten::neg", big))


# --- values ---


def test_a_long_chain_is_computed_once_and_forgotten_values_are_freed() -> None:
    recorded = Recorded()
    ref = recorded.constant(torch.zeros(4))
    for _ in range(50):
        before, ref = ref, recorded("aten::add.Tensor", ref, 1.0)
        recorded.session.handle(Forget([before]), 0)
    first = recorded.propose(ref)
    assert first.operations == 51
    assert scalar((first.value or b"")[:4]) == 50.0
    assert recorded.session.reader.nbytes == 16
    after = recorded("aten::neg", ref)
    recorded.session.handle(Forget([ref]), 0)
    assert recorded.propose(after).operations == 1
    assert recorded.session.reader.nbytes == 16
    recorded.session.handle(Forget([after]), 0)
    assert recorded.session.reader.nbytes == 0


def test_values_that_were_dropped_for_memory_are_computed_again() -> None:
    recorded = Recorded(Limits(memory=256 * 1024))
    start = recorded.constant(torch.arange(2048.0))
    held = [recorded("aten::mul.Tensor", start, float(factor)) for factor in range(24)]
    for _ in range(2):
        for factor, ref in enumerate(held):
            assert torch.equal(recorded.value(ref), torch.arange(2048.0) * factor)
    total = held[0]
    for ref in held[1:8]:
        total = recorded("aten::add.Tensor", total, ref)
    assert torch.equal(recorded.value(total), torch.arange(2048.0) * 28)


def test_a_large_value_is_a_file_for_the_owner_of_the_process_only(
    births: tuple[Recorded, Ref], tmp_path: Path
) -> None:
    recorded, _ = births
    path = tmp_path / "answer"
    big = recorded("aten::expand", recorded.constant(torch.tensor([[1.5]])), [300, 300])
    assert torch.equal(recorded.value(big, path), torch.full((300, 300), 1.5))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failure_while_computing_says_only_where(
    births: tuple[Recorded, Ref], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error's text must not depend on values (attack 13)."""
    recorded, x = births
    ref = recorded("aten::neg", x, line="notebook.py:3")

    def fail(*_: Any) -> None:
        raise RuntimeError("value 3.14 is bad")

    monkeypatch.setattr("apps.compute.mapped.tensor", fail)
    with pytest.raises(GridError) as caught:
        recorded.value(ref)
    assert "3.14" not in str(caught.value) + str(caught.value.details)


def test_an_approved_program_runs_again_without_its_session(births: tuple[Recorded, Ref], tmp_path: Path) -> None:
    recorded, x = births
    recorded("aten::exp", x)  # not part of what is asked for
    weights = recorded.constant(torch.tensor([[1.0], [2.0]]))
    ref = recorded("aten::sum", recorded("aten::mm", x, weights))
    exported = recorded.session.handle(Export(1, ref, str(tmp_path / "constants"), {"births": "february"}), 0)
    assert isinstance(exported, Exported)
    program = decode_program(exported.program)
    assert [node.id for node in program.nodes] == [0, 1, 2, 3]
    again = Recorded()
    spec = tensor_asset(tmp_path, VALUES, columns=["weight", "height"])
    again.session.program.judge.bind(spec, ["values"])
    loaded = again.session.handle(Load(2, exported.program, exported.constants), 0)
    assert isinstance(loaded, Loaded)
    expected = recorded.propose(ref).program_hash
    assert loaded.program_hash == expected == result_hash(program.results, program_hashes(program.nodes))
    assert torch.equal(again.value(loaded.results[0]), recorded.value(ref))
    Path(exported.constants).write_bytes(Path(exported.constants).read_bytes()[:-1] + b"\x01")
    changed = Recorded()
    changed.session.program.judge.bind(spec, ["values"])
    reply = changed.session.handle(Load(3, exported.program, exported.constants), 0)
    assert getattr(reply, "code", "") == "invalid_input"
