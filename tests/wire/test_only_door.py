"""Every value leaves through `compute.release`, by the source. What live doors let out: `test_canaries.py`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "apps/compute/release.py"
DELIVER = "apps/wire/answers.py:Answers._deliver"
SPEAK = "apps/wire/conversation.py:Conversation"


def modules() -> dict[str, ast.Module]:
    """Path and source of everything that a deployment runs. `reference` makes the docs' pages."""
    found = {}
    for room in ("apps", "gridsite"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "/migrations/" not in name and not name.startswith("gridsite/reference/"):
                found[name] = ast.parse(path.read_text())
    return found


class Uses(ast.NodeVisitor):
    """Where a name is called, read as an attribute or imported: {"path:Class.function"}."""

    def __init__(self, path: str) -> None:
        self.place = [path]
        self.calls: dict[str, set[str]] = {}
        self.attributes: dict[str, set[str]] = {}
        self.imports: dict[str, set[str]] = {}
        self.texts: dict[str, set[str]] = {}

    def _here(self) -> str:
        path, *names = self.place
        return f"{path}:{'.'.join(names)}" if names else path

    def _inside(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.place.append(node.name)
        self.generic_visit(node)
        self.place.pop()

    visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _inside

    def visit_Call(self, node: ast.Call) -> None:
        self.calls.setdefault(ast.unparse(node.func), set()).add(self._here())
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.attributes.setdefault(node.attr, set()).add(self._here())
        self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for name in node.names:
            self.imports.setdefault(f"{node.module}.{name.name}", set()).add(self.place[0])

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.texts.setdefault(node.value, set()).add(self._here())


@pytest.fixture(scope="module")
def source() -> list[Uses]:
    found = []
    for path, tree in modules().items():
        uses = Uses(path)
        uses.visit(tree)
        found.append(uses)
    return found


CALLS = {
    # A value that may leave is made in one module, and put on the wire in one function.
    "Released": {f"{RELEASE}:pointer", f"{RELEASE}:private", f"{RELEASE}:stored"},
    "m.Answer": {DELIVER},
    "Outgoing": {DELIVER},
    "pack_chunk": {"apps/wire/transfers.py:Outgoing.chunks"},
    # A worker computes a private value for the release only.
    "Evaluate": {f"{RELEASE}:_evaluate"},
    "states.value": {"apps/compute/worker.py:Session.evaluate"},
    "reader.values": {
        "apps/compute/states.py:value",
        # What the kernel adds up, and the public numbers that its noisy sums are multiplied by.
        "apps/compute/readers/bases.py:_contributions",
        "apps/compute/readers/bases.py:Affine.__init__",
    },
    "Draw": {f"{RELEASE}:private"},
    "drawing.draw": {f"{RELEASE}:private"},
    "drawing.taken": {f"{RELEASE}:private"},
    "bases.rows": {
        "apps/compute/private.py:_noisy",
        "apps/compute/private.py:draw",
        "apps/compute/sealing.py:seal",
    },
    "kernel.release": {"apps/compute/private.py:_noisy"},
    "_evaluate": {f"{RELEASE}:pointer", f"{RELEASE}:approved"},
    "Answered": {
        f"{RELEASE}:pointer",
        f"{RELEASE}:_inline_or_file",
        f"{RELEASE}:_evaluate",
        "apps/datarequests/queries.py:answer_of",
    },
    # Each of its doors has one caller.
    "release.pointer": {"apps/compute/sessions.py:Session.get"},
    "release.private": {"apps/compute/sessions.py:Session.private"},
    "release.approved": {"apps/datarequests/runner.py:_execute"},
    "release.stored": {"apps/wire/asks.py:fetch"},
    "answer_of": {"apps/wire/asks.py:fetch.load"},
    "self._deliver": {"apps/wire/answers.py:Answers._answer"},
    # Batches and chunks go out by one function, chunks from one place.
    "self._line.chunk": {DELIVER},
    "socket.put": {f"{SPEAK}._put"},
    "self._put": {f"{SPEAK}._welcome", f"{SPEAK}.reply", f"{SPEAK}.chunk"},
    "self.put": {"apps/wire/consumer.py:GridConsumer._turn_away"},
    "m.NodeBatch": {
        "apps/wire/outbox.py:Outbox.pack",
        f"{SPEAK}._welcome",
        "apps/wire/consumer.py:GridConsumer._turn_away",
    },
}
IMPORTS = {
    "apps.compute.release.Released": {"apps/wire/answers.py"},
    "apps.compute.release.Answered": {"apps/datarequests/queries.py"},
    "apps.compute.messages.Evaluate": {RELEASE},
    "apps.compute.messages.Value": {RELEASE, "apps/compute/drawing.py"},
    "apps.compute.models.StoredAnswer": {RELEASE, "apps/console/compute.py", "apps/console/navigation.py"},
    "apps.datarequests.queries.answer_of": {"apps/wire/asks.py"},
    "apps.wire.transfers.Outgoing": {"apps/wire/answers.py"},
    "gridclient.wire.frames.pack_chunk": {"apps/wire/transfers.py"},
    # By their plain names they could be renamed on the way.
    "apps.compute.release.pointer": set(),
    "apps.compute.release.approved": set(),
    "apps.compute.release.stored": set(),
    "apps.compute.release._KEY": set(),
    "gridclient.wire.messages.Answer": set(),
}
ATTRIBUTES = {
    # Where the store is written, and where it is read.
    "answer_file": {"apps/datarequests/actions.py:store_answer", "apps/datarequests/queries.py:answer_of"},
}
TEXTS = {
    "websocket.send": {"apps/wire/consumer.py:GridConsumer.put"},
}


@pytest.mark.parametrize("name", CALLS)
def test_only_these_make_or_hand_over_a_value(source: list[Uses], name: str) -> None:
    assert set().union(*(uses.calls.get(name, set()) for uses in source)) == CALLS[name]


@pytest.mark.parametrize("name", IMPORTS)
def test_nobody_else_imports_what_values_are_made_with(source: list[Uses], name: str) -> None:
    assert set().union(*(uses.imports.get(name, set()) for uses in source)) == IMPORTS[name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_stored_answers_are_read_in_one_place(source: list[Uses], name: str) -> None:
    assert set().union(*(uses.attributes.get(name, set()) for uses in source)) == ATTRIBUTES[name]


@pytest.mark.parametrize("text", TEXTS)
def test_one_place_sends_on_the_data_socket(source: list[Uses], text: str) -> None:
    assert set().union(*(uses.texts.get(text, set()) for uses in source)) == TEXTS[text]


def test_value_cannot_be_called_released_elsewhere() -> None:
    from apps.compute.release import Answered, Released
    from gridclient.wire.errors import InternalError
    from gridclient.wire.messages import TensorHeader

    with pytest.raises(InternalError):
        Released(Answered("tensor", TensorHeader("uint8", [1], 1), b"x", None), "public", key=object())
