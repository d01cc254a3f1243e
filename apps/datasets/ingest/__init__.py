"""Check an upload against its specification and write the files of a dataset version. Runs in a worker; no Django.

    limits    caps, and the list of problems
    declared  the specification itself, before any value is looked at
    files     files that are private, durable and hashed while they are written; the hostile safetensors header
    arrow     the hostile Arrow stream
    rules     what a column allows: bounds, wholeness, missing values
    entities  identifiers of people into HMACs
    tensors   a tensor from end to end
    tables    a table from end to end
    mocks     mock data: made, or the owner's and compared with the private rows

No text of a problem holds a value, a position or a count of rows: only declared names and rules.
"""

from __future__ import annotations

from pathlib import Path

from apps.core.durable import sync
from apps.datasets.assets import SUFFIXES, TENSOR, Ingested
from apps.datasets.ingest.declared import check_spec
from apps.datasets.ingest.limits import IngestLimits, Problems
from apps.datasets.ingest.tables import ingest_table
from apps.datasets.ingest.tensors import ingest_tensor
from gridclient.wire.errors import InvalidInputError, LimitExceededError
from gridclient.wire.messages import PublishSpec

__all__ = ["IngestLimits", "Ingested", "ingest"]


def ingest(
    spec: PublishSpec,
    values: Path,
    mock: Path | None,
    entities_key: bytes,
    out: Path,
    limits: IngestLimits = IngestLimits(),  # noqa: B008  (frozen)
) -> Ingested:
    """Write `values`, `mock` and, where declared, `entities` into the existing folder `out`; all are on disk on return.

    `values`: a tensor as safetensors with the key "values" [n, ...] of a numeric dtype and, where `spec.entities` is
    "", the key "entities" (int64 [n] or UTF-8 in uint8 [n, width]); a table as an Arrow IPC stream. `mock` alike,
    without entities; None: made from public metadata. Raises InvalidInputError whose `problems` are all that is wrong,
    and LimitExceededError where the worker's memory does not suffice.
    """
    problems = Problems()
    check_spec(spec, limits, problems)
    if spec.kind not in SUFFIXES:
        problems.check()
    run = ingest_tensor if spec.kind == TENSOR else ingest_table
    try:
        ingested = run(spec, values, mock, entities_key, out, limits, problems)
    except InvalidInputError as error:
        # Not even readable: one more problem beside those found before.
        problems.add(error.message)
        ingested = None
    except MemoryError:
        raise LimitExceededError("This upload needs more memory than a session has here.") from None
    problems.check()
    assert ingested is not None
    sync(out)
    return ingested
