"""The verbs about domains and pots. Each checks, writes and records in one transaction.

Every one locks the log's head first, as `ledger.charge` does: no two of them can wait for each other.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from apps.accounts.models import User
from apps.audit.actions import lock_log, record
from apps.audit.verbs import Verb
from apps.budgets import outside
from apps.budgets.models import MAX_REASON, Domain, EpochProposal, LedgerHead, Placement, Pot
from apps.budgets.policies import check_can_open_epochs, check_can_place
from apps.budgets.pots import ENTITIES, EPSILON_NANO, PLANNED_RUN, promise
from apps.core import clock
from apps.datasets.models import Dataset
from apps.permissions.policies import check_can_grant, check_can_publish
from gridclient.wire.errors import ConflictError, InvalidInputError

Accounting = Domain.Accounting


@transaction.atomic
def open_domain(
    slug: str, *, statement: str, entities: int = ENTITIES, accounting: str = Accounting.UNIFORM, by: User,
    now: datetime | None = None,
) -> Domain:  # fmt: skip
    """Open a domain of other people, with the default pots. `statement`: why nobody in it is in another domain.
    `accounting`: "individual" where each person is charged what it contributed; then its datasets declare identifiers.

    Raises InvalidInputError, ConflictError where there is one of this name, PublishNotPermittedError.
    """
    check_can_publish(by)
    lock_log()
    if not slug.replace("-", "").isalnum() or not slug.isascii() or slug != slug.lower() or len(slug) > 64:
        raise InvalidInputError("The name of a domain has 1 to 64 small letters, digits and hyphens.")
    statement, moment = _checked(statement, "Say why nobody in it is in another domain"), now or clock.now()
    if Domain.objects.filter(slug=slug).exists():
        raise ConflictError(f"There is a domain {slug!r} already.")
    if accounting not in Accounting.values:
        raise InvalidInputError(f"accounting is one of {', '.join(Accounting.values)}.")
    domain = Domain(slug=slug, statement=statement, entities=entities, accounting=accounting, created=moment)
    pots = [_pot(domain, kind, EPSILON_NANO[kind], entities, moment) for kind in EPSILON_NANO]
    domain.save()
    for pot in pots:
        pot.save()
    record(
        Verb.DOMAIN_OPENED, by=by, target=f"domain:{slug}", at=moment, statement=statement, entities=entities,
        accounting=accounting,
    )  # fmt: skip
    return domain


@transaction.atomic
def open_block(domain: Domain, block: str, *, epsilon_nano: int, by: User, now: datetime | None = None) -> Pot:
    """Open the pot of a time block: what is promised holds for each block by itself. Raises like `open_domain`, and
    NotPermittedError for whoever may not `place` data in the domain."""
    check_can_publish(by)
    check_can_place(by, domain)
    lock_log()
    domain, moment = Domain.objects.select_for_update().get(pk=domain.pk), now or clock.now()
    if not block or len(block) > 64 or not block.replace("-", "").isalnum():
        raise InvalidInputError("The name of a time block has 1 to 64 letters, digits and hyphens, such as 2026-11.")
    if Pot.objects.filter(domain=domain, epoch=domain.epoch, block=block).exists():
        raise ConflictError(f"There is a time block {block!r} already.")
    pot = _pot(domain, Pot.Kind.QUERIES, epsilon_nano, domain.entities, moment, block=block)
    pot.save()
    record(Verb.POT_SET, by=by, target=_target(pot), at=moment, block=block, epsilon=epsilon_nano)
    return pot


@transaction.atomic
def set_pot(
    pot: Pot,
    *,
    epsilon_nano: int,
    planned: tuple[float, float] = PLANNED_RUN,
    year_nano: int | None = None,
    by: User,
    now: datetime | None = None,
) -> Pot:
    """Say what a pot promises, before anything was spent. `planned`: sampling rate and noise of the run that a training
    pot is for; `year_nano`: the part of epsilon that is released each year.

    Raises InvalidInputError, ConflictError once something was spent, NotPermittedError.
    """
    check_can_open_epochs(by, pot.domain)
    lock_log()
    pot = Pot.objects.select_for_update(of=("self",)).select_related("domain").get(pk=pot.pk)
    if pot.spent or pot.charges.exists():
        raise ConflictError("Something was spent from this pot: what it promises stays. Another epoch has new pots.")
    fields = _promise(pot.kind, epsilon_nano, pot.domain.entities, planned, year_nano)
    for name, value in fields.items():
        setattr(pot, name, value)
    pot.save(update_fields=list(fields))
    record(Verb.POT_SET, by=by, target=_target(pot), at=now or clock.now(), **fields)
    return pot


@transaction.atomic
def place(dataset: Dataset, domain: Domain, *, block: str = "", by: User, now: datetime | None = None) -> Placement:
    """Say that a dataset's people are those of a domain. Once, and before anything was released from it.

    Raises ConflictError after that, InvalidInputError for a time block that isn't open or people without the
    identifiers that the domain needs, NotPermittedError for anyone but the dataset's owner, and for an owner whom
    `policies.check_can_place` doesn't let in.
    """
    check_can_grant(by, dataset)
    check_can_place(by, domain)
    lock_log()
    check_identified(domain, dataset)
    if not Pot.objects.filter(domain=domain, epoch=domain.epoch, block=block, kind=Pot.Kind.QUERIES).exists():
        raise InvalidInputError(f"The domain {domain.slug!r} has no time block {block!r}.")
    if Placement.objects.filter(dataset=dataset).exists():
        raise ConflictError("Whose people these are was said before, or something was released: it stays.")
    placement = Placement.objects.create(dataset=dataset, domain=domain, block=block)
    record(
        Verb.DATASET_PLACED, by=by, target=f"dataset:{dataset.pk}", at=now or clock.now(), domain=domain.slug,
        block=block, statement=domain.statement,
    )  # fmt: skip
    return placement


@transaction.atomic
def propose_epoch(
    domain: Domain, *, reason: str, entities: int | None = None, by: User, now: datetime | None = None
) -> EpochProposal:
    """Propose fresh pots for a domain. What was answered stays answered: what an entity was promised adds up.

    `entities`: the most there can be from then on. Raises ConflictError where one is proposed, InvalidInputError,
    NotPermittedError.
    """
    check_can_open_epochs(by, domain)
    lock_log()
    domain, moment = Domain.objects.select_for_update().get(pk=domain.pk), now or clock.now()
    reason, most = _checked(reason, "Say why a new epoch is needed"), entities or domain.entities
    for pot in _pots(domain):
        _promise(pot.kind, pot.epsilon_nano, most)
    if EpochProposal.objects.filter(domain=domain, epoch=domain.epoch + 1).exists():
        raise ConflictError("A new epoch is proposed already: somebody else can confirm it.")
    proposal = EpochProposal.objects.create(
        domain=domain, epoch=domain.epoch + 1, entities=most, reason=reason, proposed_by=by, proposed_at=moment
    )
    record(
        Verb.EPOCH_PROPOSED, by=by, target=f"domain:{domain.slug}", at=moment, epoch=proposal.epoch, entities=most,
        reason=reason,
    )  # fmt: skip
    return proposal


@transaction.atomic
def confirm_epoch(proposal: EpochProposal, *, by: User, now: datetime | None = None) -> Domain:
    """Open a proposed epoch: new pots with the same epsilons, and the domain isn't frozen any more.

    Where the ledger lost its head, all other domains stay frozen, and the head outside is set to what there is. Raises
    ConflictError where it was confirmed before, NotPermittedError, also for who proposed it.
    """
    lock_log()
    proposal = EpochProposal.objects.select_for_update().get(pk=proposal.pk)
    domain, moment = Domain.objects.select_for_update().get(pk=proposal.domain_id), now or clock.now()
    check_can_open_epochs(by, domain, proposed_by=proposal.proposed_by)
    if proposal.confirmed_by is not None or proposal.epoch != domain.epoch + 1:
        raise ConflictError("This epoch was opened before.")
    lost = outside.FILE.read() if (why := outside.problem()) else None
    if why:
        outside.freeze(why)
    for pot in _pots(domain):
        fresh = _pot(domain, pot.kind, pot.epsilon_nano, proposal.entities, moment, block=pot.block)
        fresh.epoch = proposal.epoch
        fresh.save()
    proposal.confirmed_by, proposal.confirmed_at = by, moment
    proposal.save(update_fields=["confirmed_by", "confirmed_at"])
    domain.epoch, domain.entities, domain.frozen = proposal.epoch, proposal.entities, ""
    domain.save(update_fields=["epoch", "entities", "frozen"])
    record(
        Verb.EPOCH_OPENED, by=by, target=f"domain:{domain.slug}", at=moment, epoch=domain.epoch, found=why,
        proposed_by=proposal.proposed_by.username, lost=lost._asdict() if lost is not None else None,
    )  # fmt: skip
    if lost is not None:
        # Its target is never erased, by which a network that names this head is understood later.
        record(Verb.LEDGER_SET_BACK, by=by, target=f"head:{lost.seq}:{lost.hash}", at=moment, lost=lost._asdict())
    if why:
        head = LedgerHead.objects.get()
        transaction.on_commit(lambda: outside.anchor(head.seq, head.hash))
    return domain


def check_identified(domain: Domain, dataset: Dataset) -> None:
    """Raise InvalidInputError where a version's people have no identifiers, and the domain tells them by these."""
    if domain.accounting == Accounting.INDIVIDUAL and dataset.versions.exclude(entities="declared").exists():
        raise InvalidInputError(
            f"The privacy domain {domain.slug!r} charges each person by itself, in all its datasets: say with "
            "entities= whose rows these are."
        )


def _pots(domain: Domain) -> list[Pot]:
    """The pots of the domain's present epoch."""
    return list(Pot.objects.filter(domain=domain, epoch=domain.epoch))


def _pot(domain: Domain, kind: str, epsilon_nano: int, entities: int, moment: datetime, *, block: str = "") -> Pot:
    fields = _promise(kind, epsilon_nano, entities)
    if kind == Pot.Kind.QUERIES and domain.accounting == Accounting.INDIVIDUAL:
        fields["uniform"] = 0
    return Pot(domain=domain, epoch=domain.epoch, kind=kind, block=block, opened=moment, **fields)


def _promise(
    kind: str,
    epsilon_nano: int,
    entities: int,
    planned: tuple[float, float] = PLANNED_RUN,
    year_nano: int | None = None,
) -> dict[str, int | None]:
    if year_nano is not None and not 0 < year_nano <= epsilon_nano:
        raise InvalidInputError("What is released each year is a part of the epsilon.")
    if entities < 1:
        raise InvalidInputError("A domain has at least one entity.")
    try:
        return dict(promise(kind, epsilon_nano=epsilon_nano, entities=entities, planned=planned, year_nano=year_nano))
    except ValueError as error:
        raise InvalidInputError(str(error)) from None


def _checked(reason: str, ask: str) -> str:
    reason = reason.strip()
    if not 0 < len(reason) <= MAX_REASON:
        raise InvalidInputError(f"{ask}, in 1 to {MAX_REASON} characters.")
    return reason


def _target(pot: Pot) -> str:
    return f"pot:{pot.domain.slug}:{pot.epoch}:{pot.kind}:{pot.block}".rstrip(":")
