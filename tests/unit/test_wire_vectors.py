"""The vectors in the docs are what this implementation speaks: another language relies on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from gridclient.program import graph
from gridclient.program.graph import Ref
from gridclient.wire import errors, frames
from gridclient.wire import messages as m

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "reference" / "wire" / "vectors.json").read_text()
)
DECODE: dict[str, Callable[[memoryview], Any]] = {"client": m.decode_client, "node": m.decode_node}


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: vector["meaning"])
def test_frame_decodes_and_encodes_to_the_same_bytes(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    frame = frames.unpack(data)
    assert {"kind": frame.kind, "transfer": frame.transfer, "offset": frame.offset} == vector["header"]
    if frame.kind == frames.CHUNK:
        assert frame.body.hex() == vector["chunk"]
        assert frames.pack_chunk(frame.transfer, frame.offset, frame.body) == data
    else:
        batch = DECODE[vector["from"]](frame.body)
        assert batch.id == vector["batch"][0]
        assert [command.__struct_config__.tag for command in batch.commands] == [c[0] for c in vector["batch"][1]]
        assert frames.pack_batch(m.encode(batch)) == data


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["meaning"])
def test_hostile_frame_is_refused_with_the_stated_code(vector: dict[str, Any]) -> None:
    with pytest.raises(errors.BY_CODE[vector["code"]]):
        DECODE[vector["from"]](frames.unpack(bytes.fromhex(vector["hex"])).body)


def test_every_kind_of_command_has_a_vector() -> None:
    shown = {(v["from"], command[0]) for v in VECTORS["frames"] for command in v.get("batch", [0, []])[1]}
    kinds = {("client", c.__struct_config__.tag) for c in get_args(m.ClientCommand)}
    kinds |= {("node", c.__struct_config__.tag) for c in get_args(m.NodeCommand)}
    assert shown == kinds


def test_hashes_are_what_grants_and_approvals_are_bound_to() -> None:
    wanted = VECTORS["hashes"]
    tensor = wanted["tensor_digest"]
    digest = graph.tensor_digest(tensor["dtype"], tensor["shape"], bytes.fromhex(tensor["bytes"]))
    assert digest == tensor["sha256"]
    (run,) = [v for v in VECTORS["frames"] if v["meaning"].startswith("Six nodes")]
    (command,) = m.decode_client(frames.unpack(bytes.fromhex(run["hex"])).body).commands
    assert isinstance(command, m.Run)
    hashes = graph.program_hashes(command.nodes)
    assert {str(number): value for number, value in hashes.items()} == wanted["lineage"]["sha256"]
    results = [Ref(*pair) for pair in wanted["results"]["refs"]]
    assert graph.result_hash(results, hashes) == wanted["results"]["sha256"]


def test_the_place_in_a_notebook_does_not_change_what_was_approved() -> None:
    here = graph.Node(1, "aten::neg", [1.0], {}, 1, "a.py:1")
    there = graph.Node(9, "aten::neg", [1.0], {}, 1, "b.py:2")
    assert graph.lineage_hash(here, {}) == graph.lineage_hash(there, {})
