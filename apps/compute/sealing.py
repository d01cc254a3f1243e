"""Before the charge: what a private answer costs each entity, in a file that the web process only carries."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from apps.compute import kernel, mapped, private, vector
from apps.compute.costs import costs, factor
from apps.compute.messages import Seal, Sealed
from apps.compute.programs import Program
from apps.compute.readers import bases
from apps.compute.readers.torch import TorchReader
from apps.compute.vector import Amounts, Contribution
from apps.datasets.assets import AssetSpec


def seal(program: Program, reader: TorchReader, question: Seal) -> Sealed:
    """Write the record of an answer that is the sum of what its entities contribute. Nothing is drawn.

    An entity with several sums is charged for all of them together. Raises InternalError for what was not priced so.
    """
    found = bases.form(program, reader, bases.bases(program, question.value))
    private.check_charged(found, question.clips)
    account = question.account
    versions: dict[tuple[str, int], tuple[AssetSpec, Amounts]] = {}
    for base in found:
        spec = bases.declared(program, reader, base)
        rows, codes, keep = bases.rows(program, reader, base)
        how = private.mechanism_of(base, question.unit)
        squared = kernel.squared_norms(kernel.quantised(rows, codes, keep, how))
        cost = costs(squared, factor(account.order, how.scale), account.worst)
        _, before = versions.get((spec.dataset, spec.version), (spec, np.uint64(0)))
        versions[spec.dataset, spec.version] = spec, np.minimum(before + cost, np.uint64(account.worst))
    contributions = [
        Contribution(spec.dataset, spec.version, cost, partial(mapped.identifiers, spec))
        for spec, cost in versions.values()
    ]
    return Sealed(question.ask, *vector.seal(Path(question.path), account, contributions))
