"""Which plans a person may see, and what is told of one."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from apps.accounts.capabilities import ACCOUNTS_MANAGE, EVERYTHING_READ
from apps.accounts.models import User
from apps.plans.models import Plan
from apps.plans.policies import can_download, can_run


def plans_visible_to(user: User | None) -> QuerySet[Plan]:
    """All plans for who may run them, delete them or see everything; else one's own. Without their bytes."""
    found = Plan.objects.select_related("owner").defer("data")
    if user is None or not user.is_active:
        return found.none()
    if can_run(user) or user.has(EVERYTHING_READ) or user.has(ACCOUNTS_MANAGE):
        return found
    return found.filter(owner=user)


def data_of(found: QuerySet[Plan]) -> bytes | None:
    """The bytes of the one plan of a query; None where it has none."""
    row = found.values_list("data", flat=True).first()
    return None if row is None else bytes(row)


def public_plan(plan: Plan, reader: User) -> dict[str, Any]:
    """What a plan is, as REST and the wire tell it: enough to call it, not what it does."""
    shown = {name: plan.signature[name] for name in ("inputs", "results", "size", "draws")}
    return {
        "name": plan.name,
        "description": plan.description,
        "owner": plan.owner.username,
        "sha256": plan.sha256,
        "nbytes": plan.nbytes,
        **shown,
        "allow_download": plan.allow_download,
        "may_download": can_download(reader, plan),
        "created": plan.created.isoformat(),
    }
