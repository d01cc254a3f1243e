"""What a private answer guarantees, for whoever must show it: plain JSON values, from the ledger and the
disclosures beside it."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any
from uuid import UUID

from apps.accounts.models import User
from apps.budgets import accountant
from apps.budgets.accountant import ARGMAX
from apps.budgets.models import Charge, Release
from apps.compute import disclosures
from apps.compute.mechanism import mechanism
from apps.permissions.queries import datasets_visible_to

UNIT = "entity"
ADJACENCY = "all rows of one entity are replaced by null records, which contribute nothing"
NAMES = {
    "gaussian": "integer sum of clipped contributions with discrete Gaussian noise (Canonne, Kamath, Steinke 2020)",
    ARGMAX: "exponential mechanism by Gumbel noise (McSherry, Talwar 2007)",
}


def certificate(release: Release, *, to: User) -> dict[str, Any]:
    """The certificate of a release, as `to` may see it. It holds no answer, and no name of a person.

    `epsilon` is that of this answer by itself, at the smallest `delta` of its pots; `charges` say what it took of each
    pot, as Renyi divergence at the pot's `order` in units of 2^-40. `clips` and `sigmas`: of each sum over people, in
    units of the declared half-range; `grids`: its numbers are multiples of so many powers of two of that. Of exact
    answers about the same people, which have no epsilon, `disclosures_outside_the_ledger` says how many there are.
    """
    return certificates([release], to=to)[0]


def certificates(releases: Sequence[Release], *, to: User) -> list[dict[str, Any]]:
    """Those of many releases, in a number of queries that doesn't depend on how many."""
    questions = [json.loads(release.question) for release in releases]
    charges: defaultdict[UUID, list[Charge]] = defaultdict(list)
    for charge in Charge.objects.filter(release__in=releases).select_related("pot__domain"):
        charges[charge.release_id].append(charge)
    datasets = [[UUID(dataset) for dataset, _ in question["versions"]] for question in questions]
    visible = datasets_visible_to(to).filter(pk__in={dataset for group in datasets for dataset in group})
    names = {str(key): slug for key, slug in visible.values_list("pk", "slug")}
    beside = disclosures.numbers_beside(datasets)
    return [
        _certificate(release, question, charges[release.pk], to, names, number)
        for release, question, number in zip(releases, questions, beside, strict=True)
    ]


def _certificate(
    release: Release, question: dict[str, Any], charges: list[Charge], to: User, names: Mapping[str, str], beside: int
) -> dict[str, Any]:
    delta = min(charge.pot.delta for charge in charges)
    return {
        "id": str(release.pk),
        "at": release.at.isoformat(),
        "state": release.state,
        "unit": UNIT,
        "adjacency": ADJACENCY,
        "epsilon": own_epsilon(question, delta),
        "delta": delta,
        "mechanism": question["mechanism"],
        "mechanism_in_words": NAMES[question["mechanism"]],
        "sizes": question["sizes"],
        "clips": question["clips"],
        "sigmas": question["sigmas"],
        "grids": _grids(question),
        "details": question["details"],
        "program": release.program,
        "data": _named(question["versions"], names, mine=release.user_id == to.pk),
        "accounting": charges[0].pot.domain.accounting,
        "may_exclude": release.may_exclude,
        "charges": [_charged(charge) for charge in charges],
        "position": release.seq,
        "hash": release.hash,
        "previous": release.previous,
        "audit_event": release.event,
        "disclosures_outside_the_ledger": beside,
        "code_version": version("gridclient"),
    }


def own_epsilon(question: dict[str, Any], delta: float) -> float:
    """The epsilon of an answer by itself; `question` as the ledger keeps it."""
    if question["mechanism"] == ARGMAX:
        return float(question["epsilon"])
    ratio = accountant.ratio(question["clips"], question["sigmas"])
    return accountant.epsilon_of_sigma(1 / math.sqrt(ratio), delta)


def _grids(question: dict[str, Any]) -> list[int]:
    """The exponents of two of which the integers of each sum are multiples; a choice has none."""
    parts = zip(question["clips"], question["sigmas"], question["sizes"], question["details"]["entities"], strict=False)
    return [mechanism(clip=clip, sigma=sigma, size=size, entities=n).grid for clip, sigma, size, n in parts]


def _charged(charge: Charge) -> dict[str, Any]:
    pot = charge.pot
    return {
        "domain": pot.domain.slug,
        "epoch": pot.epoch,
        "pot": pot.kind,
        "pot_epsilon": pot.epsilon,
        "pot_delta": pot.delta,
        "order": float(pot.order),
        "amount": charge.amount,
        "of": pot.cap,
    }


def _named(versions: Sequence[Sequence[Any]], names: Mapping[str, str], *, mine: bool) -> list[dict[str, Any]]:
    """The data by name; `names`: of those that the reader sees. What they don't see any more is named by id where they
    asked; what they never saw, by none: whoever shares a domain with a hidden dataset would learn that it is there."""
    return [
        {"dataset": names[dataset], "version": version} if dataset in names
        else {"dataset": dataset if mine else "", "version": version if mine else 0}
        for dataset, version in versions
    ]  # fmt: skip
