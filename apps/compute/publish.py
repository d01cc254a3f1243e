"""Publishing: a worker checks and writes the files, then one transaction makes the dataset exist."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from django.conf import settings
from django.db import transaction

from apps.accounts.models import User
from apps.accounts.once import Asked, kept_reply, once
from apps.accounts.queries import resolve_users, user_of_live_token
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.budgets.actions import check_identified, place
from apps.budgets.models import Domain, Placement
from apps.budgets.policies import check_can_place
from apps.budgets.pots import DEFAULT
from apps.compute.messages import Ingest
from apps.compute.messages import Ingested as IngestedReply
from apps.compute.release import Caller
from apps.compute.workers import Worker
from apps.core.database import in_database
from apps.core.keys import entity_key
from apps.core.locks import OwnFolder
from apps.datasets.actions import create_dataset, create_version
from apps.datasets.assets import Ingested
from apps.datasets.models import Dataset
from apps.datasets.queries import public_metadata
from apps.permissions.actions import give, own
from apps.permissions.policies import check_can_grant, check_can_publish
from apps.permissions.queries import datasets_visible_to
from apps.tags.normal import normal
from gridclient.wire.errors import InternalError, InvalidInputError, NotFoundError
from gridclient.wire.messages import PublishSpec


async def publish(
    worker: Worker,
    *,
    ask: int,
    caller: Caller,
    spec: PublishSpec,
    values: Path,
    mock: Path | None,
    asked: Asked,
) -> dict[str, Any]:
    """Publish uploaded values as a new dataset, or as a new version of `spec.replace`. Returns the public metadata.

    Nothing is published unless all of it is: unknown users, bad rows and missing rights are found before.
    What was published under the key of `asked` before is neither checked nor published again.
    Raises InvalidInputError with every problem, PublishNotPermittedError, NotFoundError, ConflictError.
    """
    first: dict[str, Any] | None = await in_database(_published, caller, asked)
    if first is not None:
        return first
    problems = await in_database(_problems, caller, spec)
    out = Path(settings.GRID_STORAGE_DIR) / "datasets" / f"incoming-{uuid4().hex}"
    incoming = OwnFolder(out)
    try:
        question = Ingest(ask, spec, str(values), "" if mock is None else str(mock), str(out), entity_key())
        try:
            reply = await worker.ask(question)
        except InvalidInputError as error:
            raise _refusal([*problems, *error.details.get("problems", [error.message])]) from None
        if problems:
            raise _refusal(problems)
        if not isinstance(reply, IngestedReply):
            raise InternalError("The upload could not be checked.")
        ingested = msgspec.convert(reply.meta, Ingested)
        return await in_database(_commit, caller, asked, spec, ingested, out)
    finally:
        incoming.remove()


def _refusal(problems: list[str]) -> InvalidInputError:
    text = problems[0] if len(problems) == 1 else "\n".join(f"- {problem}" for problem in problems)
    return InvalidInputError(f"Nothing was published. {text}", problems=problems)


def _published(caller: Caller, asked: Asked) -> Any | None:
    return kept_reply(user_of_live_token(caller.token), asked)


def _problems(caller: Caller, spec: PublishSpec) -> list[str]:
    """What is wrong beside the values, to be told together with what is wrong with them. Missing rights are raised."""
    user = user_of_live_token(caller.token)
    check_can_publish(user)
    _existing(user, spec.replace)
    _existing(user, spec.entities_of)
    checks: list[Callable[[], object]] = [lambda: resolve_users(spec.allowed_users), lambda: _domain(user, spec)]
    checks += [partial(normal, tag) for tag in spec.tags]
    problems: dict[str, None] = {}
    for check in checks:
        try:
            check()
        except InvalidInputError as error:
            problems[error.message] = None
    return list(problems)


def _existing(user: User, slug: str | None) -> Dataset | None:
    """A dataset of this owner's that the specification names."""
    if slug is None:
        return None
    dataset = datasets_visible_to(user).filter(slug=slug).first()
    if dataset is None:
        raise NotFoundError(f"There is no dataset {slug!r}.")
    check_can_grant(user, dataset)
    return dataset


def _domain(user: User, spec: PublishSpec) -> tuple[Domain, str] | None:
    """The domain and time block of what is published; None: the default one, as nobody said more.

    Rows that are those of another dataset are its people: a budget beside theirs would answer about them twice.
    Raises InvalidInputError where there is no such domain, it came too late, or it isn't that of these people,
    NotPermittedError where this owner may not place data in it.
    """
    replaced, paired = _existing(user, spec.replace), _existing(user, spec.entities_of)
    if spec.domain is not None and replaced is not None:
        raise InvalidInputError("domain: whose people these are was said with the first version, and stays.")
    found = Domain.objects.filter(slug=DEFAULT if spec.domain is None else spec.domain).first()
    if found is None:
        raise InvalidInputError(
            f"domain: there is no privacy domain {spec.domain!r}. Open it with node.open_domain(name, statement=...), "
            "or leave it out: then these are people of the node's default domain."
        )
    check_can_place(user, found)
    if paired is None:
        return None if spec.domain is None else (found, "")
    domain, block = _place(paired)
    said = _place(replaced) if replaced is not None else (domain, block) if spec.domain is None else (found, block)
    if said != (domain, block):
        raise InvalidInputError(
            f"entities_of: these are the people of {paired.slug!r}, whose budget is that of the privacy domain "
            f"{domain.slug!r}; they have no other one."
        )
    return None if (domain.slug, block) == (DEFAULT, "") else (domain, block)


def _place(dataset: Dataset) -> tuple[Domain, str]:
    """The domain and time block whose budget pays for answers about a dataset."""
    placed = Placement.objects.select_related("domain").filter(dataset=dataset).first()
    return (placed.domain, placed.block) if placed is not None else (Domain.objects.get(slug=DEFAULT), "")


@transaction.atomic
def _commit(caller: Caller, asked: Asked, spec: PublishSpec, ingested: Ingested, out: Path) -> Any:
    user = user_of_live_token(caller.token)
    return once(user, asked, lambda: _publish(user, spec, ingested, out))


def _publish(user: User, spec: PublishSpec, ingested: Ingested, out: Path) -> dict[str, Any]:
    check_can_publish(user)
    dataset, placed = _existing(user, spec.replace), _domain(user, spec)
    if dataset is not None:
        version = create_version(dataset, spec=spec, ingested=ingested, folder=out)
        check_identified(_place(dataset)[0], dataset)
        verb = Verb.DATASET_REPLACED
    else:
        dataset = create_dataset(spec=spec, ingested=ingested, folder=out)
        version = dataset.current
        own(dataset, owner=user)
        if placed is not None:
            place(dataset, placed[0], block=placed[1], by=user)
        verb = Verb.DATASET_PUBLISHED
    record(
        verb,
        by=user,
        target=f"dataset:{dataset.pk}@{version.number}",
        name=dataset.name,
        visibility=dataset.visibility,
        allowed_users=spec.allowed_users,
    )
    for allowed in resolve_users(spec.allowed_users):
        give(
            dataset,
            to=allowed,
            right="read",
            reason="Named as an allowed user when the dataset was published.",
            by=user,
        )
    return public_metadata(version)
