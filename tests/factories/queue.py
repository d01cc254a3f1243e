"""Small published datasets, and requests on them, without a worker or a wire."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from django.db import transaction
from safetensors.numpy import save_file

from apps.accounts.models import User
from apps.datarequests import actions
from apps.datarequests.models import DataRequest
from apps.datasets.actions import create_dataset
from apps.datasets.ingest import ingest
from apps.datasets.models import Dataset
from apps.permissions.actions import own
from apps.permissions.policies import Input
from gridclient.program.graph import Node, Program, Ref, asset, encode_program, program_hashes, result_hash
from gridclient.wire.messages import Column, PublishSpec

WEIGHTS = np.array([[3.1, 50.0], [2.9, 48.5], [4.0, 52.0], [3.6, 51.0]])


def publish(
    owner: User, name: str = "February births", *, tags: Sequence[str] = ("#births",), **declared: Any
) -> Dataset:
    """A tensor of four rows and two columns, checked and written as an upload is."""
    columns = [Column("weight_kg", low=0.5, high=6.0), Column("length_cm", low=30.0, high=60.0)]
    spec = PublishSpec(kind="tensor", name=name, description="Births.", tags=list(tags), columns=columns, **declared)
    with TemporaryDirectory() as folder:
        upload, out = Path(folder) / "upload", Path(folder) / "out"
        save_file({"values": WEIGHTS}, upload)
        out.mkdir()
        ingested = ingest(spec, upload, None, b"k" * 32, out)
        with transaction.atomic():
            dataset = create_dataset(spec=spec, ingested=ingested, folder=out)
            own(dataset, owner=owner)
    return dataset


def program_of(*datasets: Dataset) -> tuple[bytes, str]:
    """A program that sums everything in these datasets, and its hash."""
    nodes: list[Node] = []
    results: list[Ref] = []
    for dataset in datasets:
        nodes += [asset(len(nodes), str(dataset.pk), dataset.current.number)]
        nodes += [Node(len(nodes), "aten::sum", [Ref(len(nodes) - 1)])]
        results.append(Ref(len(nodes) - 1))
    while len(results) > 1:
        nodes += [Node(len(nodes), "aten::add.Tensor", [results.pop(), results.pop()])]
        results.append(Ref(len(nodes) - 1))
    return encode_program(Program(nodes, results)), result_hash(results, program_hashes(nodes))


def submit(requester: User, *datasets: Dataset, reason: str = "Monthly report", **changed: Any) -> DataRequest:
    """A request for the sum of everything in these datasets."""
    program, program_hash = program_of(*datasets)
    named: dict[str, Any] = {
        "program": program,
        "words": "the sum of " + " and ".join(dataset.name for dataset in datasets),
        "program_hash": program_hash,
        "inputs": [Input(str(dataset.pk), dataset.current.number, None) for dataset in datasets],
        "kind": "tensor",
        "dtype": "float64",
        "shape": [],
        "label": "agg",
        "constants_file": None,
        **changed,
    }
    return actions.submit(requester=requester, reason=reason, by=requester, **named)
