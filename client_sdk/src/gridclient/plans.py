"""Plans: named programs that a user defines once, sends, saves and runs, on pointers and on local tensors."""

from __future__ import annotations

import re
import weakref
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from gridclient import html
from gridclient.plan_calls import Signature, call
from gridclient.plan_recording import record
from gridclient.program.graph import Ref
from gridclient.program.plan_format import decode_plan, encode_plan, plan_digest
from gridclient.program.plan_graph import MAX_NAME, MAX_PLAN, Input, PlanGraph
from gridclient.recorder.spec import Spec
from gridclient.values import DTYPES
from gridclient.wire.errors import ConnectionLostError, InvalidInputError

if TYPE_CHECKING:
    from gridclient.node import Node


@overload
def plan(
    function: Callable[..., Any], *, example: Any, name: str | None = None, description: str | None = None
) -> Plan: ...
@overload
def plan(
    *, example: Any, name: str | None = None, description: str | None = None
) -> Callable[[Callable[..., Any]], Plan]: ...
def plan(
    function: Callable[..., Any] | None = None,
    *,
    example: Any,
    name: str | None = None,
    description: str | None = None,
) -> Any:
    """Make a plan of a function or a module, as a decorator or a call: `@grid.plan(example=torch.zeros(64, 2))`.

    The function is recorded once, at once. `example`: a tensor or a tuple of them; inputs of a call have these shapes
    and dtypes. Local tensors in the function, such as a module's weights, become constants of the plan. It returns a
    tensor or a tuple of tensors. `name` and `description` come from the function where they are not given.
    """
    if function is None:
        return lambda defined: plan(defined, example=example, name=name, description=description)
    title = name or _named(function)
    text = description if description is not None else _described(function)
    graph, single = record(function, example, title, text)
    return Plan(graph, single=single)


class Plan:
    """A program over named inputs. Calling it runs it where the inputs are."""

    def __init__(self, graph: PlanGraph, *, single: bool | None = None) -> None:
        self._graph = graph
        self._data = encode_plan(graph)
        self._single = len(graph.results) == 1 if single is None else single
        self._homes: weakref.WeakSet[Node] = weakref.WeakSet()
        specs = [_spec(each.dtype, each.shape, each.stride) for each in graph.signature]
        results = list(zip(graph.results, specs, strict=True))
        self._signature = Signature(graph.name, plan_digest(self._data), graph.inputs, results, graph.size, graph.draws)

    @property
    def name(self) -> str:
        return self._graph.name

    @property
    def description(self) -> str:
        return self._graph.description

    @property
    def sha256(self) -> str:
        """What a call names it by: the same plan has the same bytes everywhere."""
        return self._signature.digest

    @property
    def nbytes(self) -> int:
        """Bytes of the plan, constants included."""
        return len(self._data)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Name, dtype and shape of what a call gives."""
        return tuple(self._graph.inputs)

    @property
    def operations(self) -> list[str]:
        """The operations in their order, constants left out."""
        return [node.op for node in self._graph.nodes if not node.op.startswith("grid::constant")]

    def __repr__(self) -> str:
        count = len(self.operations)
        operations = f"{count} operation{'' if count == 1 else 's'}"
        return f"<Plan {html.plain(self.name)}({_takes(self.inputs)}): {operations}, {self.nbytes} bytes>"

    def _repr_html_(self) -> str:
        return html.card("Plan", self.name, _facts(self) | {"operations": html.text(self.operations)})

    def __call__(self, *inputs: Any) -> Any:
        """Run it: on pointers where they are, on local tensors here. Results carry no gradients."""
        return _returned(call(self._signature, inputs, self._graph, self._homes.__contains__), single=self._single)

    def send(self, node: Node, *, allow_download: bool = False) -> Plan:
        """Keep it on a node under its name, for everybody who may compute there; calls on its pointers then name it.

        A plan of mine with this name is replaced. `allow_download`: others may copy it too. Raises ConflictError where
        somebody else has the name.
        """
        kept = node.keep_plan(self._data, name=self.name, allow_download=allow_download)
        if kept.get("sha256") != self.sha256:
            raise ConnectionLostError("The node kept another plan than was sent.")
        self._homes.add(node)
        return self

    def save(self, path: str | Path) -> None:
        """Write it to a file (docs/reference/plan-format.md). There is no code in it."""
        Path(path).write_bytes(self._data)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read what `save` wrote. Raises InvalidInputError, VersionMismatchError, LimitExceededError,
        OperationNotAllowedError for a file that is no plan which this version can run."""
        with open(path, "rb") as file:
            return cls.from_bytes(file.read(MAX_PLAN + 1))

    @classmethod
    def from_bytes(cls, data: bytes) -> Plan:
        """What `load` does, from bytes."""
        return cls(decode_plan(data))


class StoredPlan:
    """A plan that is kept on a node: it can be run there, and copied where its owner allows it."""

    def __init__(self, node: Node, fields: dict[str, Any]) -> None:
        self._node = node
        self._fields = fields

    name = property(lambda self: str(self._fields["name"]))
    description = property(lambda self: str(self._fields["description"]))
    owner = property(lambda self: str(self._fields["owner"]))
    sha256 = property(lambda self: str(self._fields["sha256"]))
    nbytes = property(lambda self: int(self._fields["nbytes"]))
    allow_download = property(lambda self: bool(self._fields["allow_download"]))

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Name, dtype and shape of what a call gives."""
        return tuple(Input(each["name"], each["dtype"], each["shape"]) for each in self._fields["inputs"])

    def __repr__(self) -> str:
        where = f"of {html.plain(self.owner)} on {html.plain(self._node.id)}"
        return f"<StoredPlan {html.plain(self.name)}({_takes(self.inputs)}) {where}>"

    def _repr_html_(self) -> str:
        facts = {
            "owner": html.text(self.owner),
            "node": html.text(self._node.id),
            "may be copied": html.text(self.allow_download),
        }
        return html.card("StoredPlan", self.name, _facts(self) | facts)

    def __call__(self, *inputs: Any) -> Any:
        """Run it on pointers of this node. Results carry no gradients."""
        results = call(self._signature(), inputs, None, lambda where: where is self._node)
        return _returned(results, single=len(results) == 1)

    def download(self) -> Plan:
        """A copy of it. Raises NotPermittedError where its owner lets nobody copy it."""
        found = self._node.http.get(f"plans/{self.name}/bytes/")
        data = b64decode(found["data"])
        if plan_digest(data) != self.sha256:
            raise ConnectionLostError("The node sent another plan than it names.")
        copy = Plan.from_bytes(data)
        copy._homes.add(self._node)
        return copy

    def delete(self) -> None:
        """Remove it from the node, for everybody. For its owner, and for who manages accounts there."""
        self._node.http.delete(f"plans/{self.name}/")

    def _signature(self) -> Signature:
        fields, before = self._fields, len(self._fields["inputs"])
        results = [
            (
                Ref(each["input"]) if "input" in each else Ref(before + each["node"], each["output"]),
                _spec(each["dtype"], each["shape"], each["stride"]),
            )
            for each in fields["results"]
        ]
        return Signature(self.name, self.sha256, list(self.inputs), results, fields["size"], fields["draws"])


def _takes(inputs: tuple[Input, ...]) -> str:
    return ", ".join(f"{html.plain(each.name)} {each.shape}" for each in inputs)


def _facts(plan: Plan | StoredPlan) -> dict[str, str]:
    """What a card shows of either."""
    return {
        "description": html.text(plan.description),
        "inputs": html.text([f"{each.name} {each.dtype} {each.shape}" for each in plan.inputs]),
        "bytes": html.text(plan.nbytes),
        "sha256": html.text(plan.sha256[:16]),
    }


def _spec(dtype: str, shape: list[int], stride: list[int] | None) -> Spec:
    if stride is None:
        return Spec.dense(tuple(shape), DTYPES[dtype])
    return Spec.of(tuple(shape), tuple(stride), DTYPES[dtype])


def _returned(results: list[torch.Tensor], *, single: bool) -> Any:
    return results[0] if single else tuple(results)


def _named(function: Callable[..., Any]) -> str:
    called = type(function).__name__ if isinstance(function, torch.nn.Module) else getattr(function, "__name__", "")
    name = re.sub(r"[^a-z0-9]+", "-", called.lower()).strip("-")[:MAX_NAME].strip("-")
    if not name:
        raise InvalidInputError("This function has no name; give one, with name=.")
    return name


def _described(function: Callable[..., Any]) -> str:
    """The first paragraph of a function's own docstring."""
    text = "" if isinstance(function, torch.nn.Module) else (getattr(function, "__doc__", None) or "")
    return " ".join(text.strip().split("\n\n")[0].split())
