"""What an answer would cost, and what somebody may spend: reading only.

An allowance of epsilon e on a pot of epsilon_pot is the share e / epsilon_pot of the pot's cap. A grant that names an
epsilon is that allowance, for its lifetime, and the limit of one answer too; whoever has a team's grant shares it with
the team. Under a grant that names none, and as an owner, an account has a limit for each answer and a part of the pot
on each day (in UTC).

An owner gives away what is not theirs alone: the people of a domain have one pot, whoever has data about them. Where
others have some too, answers about the data of one owner take a part of the pot on each day, whoever asks and whatever
was granted. So nobody uses up overnight, with data and friends of their own, what others were promised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Sum

from apps.accounts.models import User
from apps.budgets import accountant
from apps.budgets.accountant import ARGMAX, GAUSSIAN
from apps.budgets.chain import question_digest
from apps.budgets.models import Allowance, Charge, Domain, Placement, Pot, Release
from apps.budgets.outside import frozen_error
from apps.budgets.policies import owners_in
from apps.budgets.pots import DEFAULT, NANO
from apps.budgets.states import State
from apps.core.canonical import canonical
from apps.datasets.models import Dataset
from apps.permissions.models import Ownership
from gridclient.wire.errors import InvalidInputError, LimitExceededError, NotPermittedError

LIMIT_NANO = NANO // 2
"""The largest epsilon of an answer where no grant names one."""
DAILY_PARTS = 4
"""A quarter of a pot for each account and day, where no grant names an epsilon; for each owner and day, where other
owners have data in the domain."""
MOST_FAILURES = 2
"""A program that failed as often for somebody, after it was charged, is answered to them automatically no more; one
that failed for as many people, to nobody. Anybody can let their own worker fail: that stops nobody else's answers."""
_TOLERANCE = 1 + 1e-6
"""On limits, which are policy: an epsilon that was computed from a noise is rounded up."""


class Question(NamedTuple):
    """What is asked: everything that decides about the law of the answer, but for its noise.

    `versions`: dataset id and number of each private input. `mechanism`: "gaussian" (`sizes` numbers in each base,
    `clips` the largest norm C of one entity in each) or "argmax" (one choice; `clips` is empty). `details`: plain JSON
    values; grids, entities, scales and whatever else decides.
    """

    program: str
    versions: tuple[tuple[str, int], ...]
    mechanism: str
    sizes: tuple[int, ...]
    clips: tuple[float, ...]
    details: dict[str, Any]


class Held(NamedTuple):
    """What lets somebody ask: a grant on a dataset, with its epsilon in nano if it names one; None: as its owner."""

    dataset: str
    grant: int | None
    epsilon: int | None


class Payer(NamedTuple):
    """An allowance that may pay: at most `most` of a pot, in all or on a day."""

    pot: int
    key: str
    daily: bool
    most: int

    def period(self, now: datetime) -> str:
        """Of the allowance that counts now."""
        return now.astimezone(UTC).date().isoformat() if self.daily else ""


class Price(NamedTuple):
    """`unit`: sigma of each base is its clip times this. `charges`: pot and amount, in the order of the pots.

    `share`: of the pot, the largest where there are several; `cost`: that share of the pot's epsilon. `remaining`: the
    epsilon that is left for this person before this answer, as a part of the pot's; `more`: how many such answers that
    gives. `payers`: for each dataset, those that may pay, and what its owner's data may take. `text` and `digest`: the
    question with its noise, as the ledger keeps it.
    """

    epsilon: float
    delta: float
    unit: float
    sigmas: tuple[float, ...]
    charges: tuple[tuple[int, int], ...]
    share: float
    cost: float
    remaining: float
    more: int
    payers: tuple[tuple[Payer, ...], ...]
    text: str
    digest: str


class Budget(NamedTuple):
    """What somebody may see of a budget. All epsilons are shares of the pot's.

    `limit`: of one answer; `allowance`: mine, in all or (`daily`) on a day, of which `used` is used up; `spent`: by me
    in this epoch; `left`: of the pot, for everybody; `remaining`: for me, now.
    """

    domain: str
    epoch: int
    epsilon: float
    delta: float
    limit: float
    allowance: float
    daily: bool
    used: float
    spent: float
    left: float
    remaining: float
    frozen: str


def price(
    user: User,
    question: Question,
    *,
    epsilon: float | None = None,
    unit: float | None = None,
    grants: Iterable[Held],
    now: datetime,
) -> Price:
    """The full price of an answer, also of one that is stored: a lower one would tell that somebody asked.

    Give `epsilon`, or `unit` (sigma / clip of each base). Reads only, and doesn't look whether enough is left. Raises
    InvalidInputError for an epsilon or unit that is none, LimitExceededError above the limit of one answer or for
    more people than the domain was opened for,
    NotPermittedError without a grant or where the program failed before, ConflictError where the budget is frozen.
    """
    if not question.versions:
        raise InvalidInputError("This value depends on no private data: take it with .get().")
    _check_program(user, question.program)
    pots = pots_of([UUID(dataset) for dataset, _ in question.versions])
    _check_population(question, pots.values())
    distinct = sorted({pot.pk: pot for pot in pots.values()}.values(), key=lambda pot: pot.pk)
    _check_alone(distinct)
    delta = min(pot.delta for pot in pots.values())
    epsilon, unit = _noise(question, epsilon, unit, delta)
    held = list(grants)
    payers = tuple(_payers(user, dataset, pot, held, epsilon) for dataset, pot in pots.items())
    payers += tuple((each,) for each in _parts(pots))
    sigmas = tuple(clip * unit for clip in question.clips)
    if not all(0 < sigma < math.inf for sigma in sigmas):
        raise InvalidInputError("So much noise, or so little, is no number: give another within=...")
    charges = tuple((pot.pk, _amount(question, pot, sigmas, epsilon)) for pot in distinct)
    by_pot, amounts = {pot.pk: pot for pot in distinct}, dict(charges)
    rooms = [
        (max(_room(by_pot[payer.pot], payer, now) for payer in candidates), by_pot[candidates[0].pot])
        for candidates in payers
    ]
    text = text_of(question, sigmas, epsilon)
    return Price(
        epsilon=epsilon,
        delta=delta,
        unit=unit,
        sigmas=sigmas,
        charges=charges,
        share=max(amounts[pot.pk] / pot.cap for pot in distinct),
        cost=max(pot.as_epsilon(amounts[pot.pk]) for pot in distinct),
        remaining=min(pot.as_epsilon(room) for room, pot in rooms),
        more=min(room // amounts[pot.pk] for room, pot in rooms),
        payers=payers,
        text=text,
        digest=question_digest(text),
    )


def budget(user: User, dataset: Dataset, *, grants: Iterable[Held], now: datetime) -> Budget:
    """What `user` may see of the budget that pays for answers about a dataset. Raises NotPermittedError."""
    pot = pots_of([dataset.pk])[str(dataset.pk)]
    held = [each for each in grants if each.dataset == str(dataset.pk)]
    if not held:
        raise NotPermittedError("You have no right to private answers about this dataset. Its owner can grant it.")
    payers = [(_payer(user, pot, each), each) for each in held]
    payer, best = max(payers, key=lambda pair: _room(pot, pair[0], now))
    room = min(_room(pot, each, now) for each in (payer, *_parts({str(dataset.pk): pot})))
    spent = Charge.objects.filter(pot=pot, release__user=user).aggregate(total=Sum("amount"))["total"] or 0
    return Budget(
        domain=pot.domain.slug,
        epoch=pot.epoch,
        epsilon=pot.epsilon,
        delta=pot.delta,
        limit=_limit(best) / NANO,
        allowance=pot.as_epsilon(payer.most),
        daily=payer.daily,
        used=pot.as_epsilon(_used(payer, now)),
        spent=pot.as_epsilon(spent),
        left=pot.as_epsilon(pot.left(now)),
        remaining=pot.as_epsilon(room),
        frozen=pot.domain.frozen,
    )


def pots_of(datasets: Sequence[UUID]) -> dict[str, Pot]:
    """The pot of questions that each dataset's answers come from, by dataset id."""
    placed = {row.dataset_id: (row.domain_id, row.block) for row in Placement.objects.filter(dataset__in=datasets)}
    elsewhere = None
    if len(placed) < len(set(datasets)):
        elsewhere = (Domain.objects.only("pk").get(slug=DEFAULT).pk, "")
    wanted = {key: placed.get(key, elsewhere) for key in datasets}
    domains = {place[0] for place in wanted.values() if place is not None}
    rows = Pot.objects.select_related("domain").filter(domain__in=domains, kind=Pot.Kind.QUERIES)
    found = {(pot.domain_id, pot.block): pot for pot in rows if pot.epoch == pot.domain.epoch}
    return {str(key): found[place] for key, place in wanted.items() if place is not None}


def _check_population(question: Question, pots: Iterable[Pot]) -> None:
    """Delta was chosen for as many people as a domain was opened for."""
    most = max(question.details.get("entities", []), default=0)
    for pot in pots:
        if most > pot.domain.entities:
            raise LimitExceededError(
                f"The privacy domain {pot.domain.slug!r} was opened for at most {pot.domain.entities:,} people, and "
                f"this answer can be about {most:,}. Its owners can open another epoch of it for more people.",
                limit=pot.domain.entities,
            )


def _check_alone(pots: Sequence[Pot]) -> None:
    """A record of what each person is charged is one pot's."""
    found = next((pot for pot in pots if pot.uniform is not None), None)
    if found is not None and len(pots) > 1:
        raise InvalidInputError(
            f"The privacy domain {found.domain.slug!r} charges each person by itself: ask for the sums of its data "
            "alone, and add the answers."
        )


def _check_program(user: User, program: str) -> None:
    failed = list(Release.objects.filter(program=program, state=State.VOID).values_list("user_id", flat=True))
    if failed.count(user.pk) >= MOST_FAILURES or len(set(failed)) >= MOST_FAILURES:
        raise NotPermittedError(
            f"This program failed {MOST_FAILURES} times after it was charged, and is answered automatically no more. "
            "Ask for the answer with .request(reason=...)."
        )


def _noise(question: Question, epsilon: float | None, unit: float | None, delta: float) -> tuple[float, float]:
    """Epsilon and unit of an answer; the unit of a choice is 0."""
    if (epsilon is None) == (unit is None):
        raise InvalidInputError("Give either epsilon=... or within=..., for example epsilon=0.5.")
    given, name = (epsilon, "epsilon") if epsilon is not None else (unit, "within")
    if not isinstance(given, int | float) or isinstance(given, bool) or not math.isfinite(given) or given <= 0:
        raise InvalidInputError(f"{name} is a number above 0, for example {name}=0.5.")
    if question.mechanism == ARGMAX:
        if epsilon is None:
            raise InvalidInputError("A choice has no width: give epsilon=..., for example epsilon=0.5.")
        _check_sane(epsilon)
        return epsilon, 0.0
    bases = len(question.clips)
    if question.mechanism != GAUSSIAN or not bases or not all(math.isfinite(c) and c > 0 for c in question.clips):
        raise InvalidInputError("A question has a known mechanism, and finite clips above 0.")
    if epsilon is not None:
        _check_sane(epsilon)
        return epsilon, math.sqrt(bases) * accountant.sigma_of(epsilon, delta)
    assert unit is not None
    found = accountant.epsilon_of_sigma(unit / math.sqrt(bases), delta)
    if math.isinf(found):
        raise InvalidInputError("So narrow an answer is not private at any epsilon: give a larger within=...")
    return found, unit


def _check_sane(epsilon: float) -> None:
    if not 1e-6 <= epsilon <= accountant.MOST_EPSILON:
        raise InvalidInputError(f"epsilon is between 0.000001 and {accountant.MOST_EPSILON:g}, for example 0.5.")


def _amount(question: Question, pot: Pot, sigmas: Sequence[float], epsilon: float) -> int:
    if question.mechanism == ARGMAX:
        return accountant.argmax(pot.order, Fraction(epsilon))
    return accountant.charge(pot.order, accountant.ratio(question.clips, sigmas))


def text_of(question: Question, sigmas: Sequence[float], epsilon: float) -> str:
    """Canonical JSON of a question with its noise: what the ledger keeps, and what stored answers are found by."""
    # The epsilon of noise is only a name of its sigma.
    given = question._asdict() | {"sigmas": sigmas, "epsilon": epsilon if question.mechanism == ARGMAX else None}
    try:
        return canonical(given).decode()
    except (TypeError, ValueError):
        raise InvalidInputError("The details of a question are plain JSON values.") from None


def _limit(held: Held) -> int:
    return LIMIT_NANO if held.epsilon is None else held.epsilon


def _payer(user: User, pot: Pot, held: Held) -> Payer:
    if held.epsilon is None:
        return Payer(pot.pk, f"user:{user.pk}", True, pot.cap // DAILY_PARTS)
    return Payer(pot.pk, f"grant:{held.grant}", False, accountant.share(held.epsilon, pot.epsilon_nano, pot.cap))


def _payers(user: User, dataset: str, pot: Pot, grants: Sequence[Held], epsilon: float) -> tuple[Payer, ...]:
    """The allowances from which an answer of this epsilon about a dataset may be paid."""
    if pot.domain.frozen:
        raise frozen_error(pot.domain.frozen)
    held = [each for each in grants if each.dataset == dataset]
    if not held:
        raise NotPermittedError("You have no right to private answers about this data. Its owner can grant it.")
    allowed = [each for each in held if epsilon * NANO <= _limit(each) * _TOLERANCE]
    if not allowed:
        most = max(map(_limit, held)) / NANO
        raise LimitExceededError(
            f"One automatic answer takes at most epsilon={most:g} here, and this one {epsilon:.6g}. Ask with "
            f"epsilon={most:g} or a wider within=..., or ask for more with .request(reason=...).",
            limit=most,
        )
    return tuple(dict.fromkeys(_payer(user, pot, each) for each in allowed))


def _parts(pots: Mapping[str, Pot]) -> list[Payer]:
    """What answers about each owner's data may take on a day of a pot that others' data has too. `pots`: by dataset."""
    owners = Ownership.objects.filter(dataset__in=list(pots)).values_list("dataset_id", "owner_id")
    mine = {(pots[str(dataset)], owner) for dataset, owner in owners}
    return [
        Payer(pot.pk, f"owner:{owner}", True, pot.cap // DAILY_PARTS)
        for pot, owner in sorted(mine, key=lambda pair: (pair[0].pk, pair[1]))
        if owners_in(pot.domain, pot.block).exclude(owner=owner).exists()
    ]


def _used(payer: Payer, now: datetime) -> int:
    row = Allowance.objects.filter(pot=payer.pot, payer=payer.key, period=payer.period(now)).first()
    return row.used if row is not None else 0


def _room(pot: Pot, payer: Payer, now: datetime) -> int:
    """How much of the pot this allowance still gives."""
    return max(0, min(payer.most - _used(payer, now), pot.room(now)))
