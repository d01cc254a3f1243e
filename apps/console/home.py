"""The home page: what needs me, and how much there is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import F, Model, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.queries import teams_visible_to, users_visible_to
from apps.audit.queries import head_problem, set_back_words, set_backs
from apps.budgets.models import Domain, EpochProposal
from apps.budgets.policies import can_open_epochs
from apps.console.base import person
from apps.console.budgets import proposed
from apps.console.datarequests import shape_words
from apps.console.show import page_of, when
from apps.core import clock
from apps.datarequests.queries import (
    budget_requests_i_may_decide,
    budget_requests_visible_to,
    requests_i_may_decide,
    requests_visible_to,
)
from apps.datarequests.transitions import BudgetState, State
from apps.network.models import Announcement, Membership, Node
from apps.network.models import State as NodeState
from apps.network.queries import nodes_visible_to
from apps.permissions.queries import datasets_visible_to, grants_visible_to

SHOWN = 10
SET_BACK_SHOWN = timedelta(days=90)

# What waits for nobody in particular: what each role does here, for an empty home page.
NEXT_STEPS = {
    "datasets.publish": "Publish a dataset with the client, and give rights on it under Grants.",
    "requests.review": "Requests for data appear here as soon as somebody asks for what no grant allows.",
    "accounts.manage": "Make an account for each person under Accounts.",
    "audit.read": "The audit log has everything that happened, in order.",
}


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Fill the home page's context, for this person's eyes."""
    user = person(request)
    waiting, number = _needs_me(user)
    return {
        **context,
        "title": "Home",
        "crumbs": [("Home", "")],
        "needs_me": [*_set_back(user), *waiting],
        "more": max(number - len(waiting), 0),
        "more_url": reverse("admin:datarequests_datarequest_changelist") + "?turn=me",
        "counts": _counts(user),
        "steps": [text for capability, text in NEXT_STEPS.items() if user.has(capability)],
    }


def _needs_me(user: User) -> tuple[list[dict[str, Any]], int]:
    """The first of what waits for this person, oldest first, and how much there is in all."""
    if settings.GRID_ROLE == "network":
        nodes = Node.objects.filter(state=NodeState.PENDING).order_by("asked")
        nodes = nodes if user.has("network.operate") else nodes.none()
        return [
            _row(f"{node.name} wants to join the network", node.url, node, when(node.asked)) for node in nodes[:SHOWN]
        ], nodes.count()
    asked = requests_i_may_decide(user)
    rows = [
        _row(f"{item.requester.username} asks for {shape_words(item)}", item.reason, item, when(item.created))
        for item in asked[:SHOWN]
    ]
    budgets = [
        _row(
            f"{item.requester.username} asks for a budget of epsilon {item.epsilon:g} on {item.dataset.slug}",
            item.reason,
            item,
            when(item.created),
        )
        for item in budget_requests_i_may_decide(user)[:SHOWN]
    ]
    rows = [*_domains(user), *budgets, *rows]
    frozen = Membership.objects.filter(frozen=True).first() if user.has("network.operate") else None
    if frozen is not None:
        rows.insert(0, _row("The network shows another key", frozen.problem, frozen, when(None)))
    return rows, len(rows) + max(asked.count() - SHOWN, 0)


def _domains(user: User) -> list[dict[str, str]]:
    """Privacy domains that answer nothing, and new epochs that this person may confirm."""
    rows = []
    for domain in Domain.objects.exclude(frozen=""):
        if can_open_epochs(user, domain) and proposed(domain) is None:
            rows.append(_row(f"Nothing is answered from the domain {domain}", domain.frozen, domain, when(None)))
    open_ = EpochProposal.objects.select_related("domain", "proposed_by")
    for each in open_.filter(confirmed_by=None, epoch=F("domain__epoch") + 1):
        if can_open_epochs(user, each.domain, proposed_by=each.proposed_by):
            text = f"{each.proposed_by.username} proposes a new epoch of the domain {each.domain}"
            rows.append(_row(text, each.reason, each.domain, when(each.proposed_at)))
    return rows


def _set_back(user: User) -> list[dict[str, str]]:
    """What whoever reads the audit log must not overlook: that it was set back, accepted or not."""
    if not (user.has("audit.read") or user.has("everything.read")):
        return []
    since = clock.now() - SET_BACK_SHOWN
    rows = [
        _row("The audit log was set back", set_back_words(event), event, when(event.at))
        for event in set_backs().filter(at__gt=since)
    ]
    if problem := head_problem():
        why = f"Found: {problem}. The operator of the machine runs manage.py verify_audit."
        rows.insert(0, {"text": "The audit log is not whole", "why": why, "when": "", "url": _list("audit.auditevent")})
    return rows


def _row(text: str, why: str, target: Model, moment: str) -> dict[str, str]:
    return {"text": text, "why": why, "when": moment, "url": page_of(target)}


def _counts(user: User) -> list[dict[str, Any]]:
    """Numbers of what this person may look at, each a way to its list."""
    live = Q(revoked_at=None) & (Q(expires=None) | Q(expires__gt=clock.now()))
    node: list[tuple[str, str, str, Callable[[User], QuerySet[Any]]]] = [
        ("Datasets", "datasets.dataset", "", datasets_visible_to),
        ("Requests waiting", "datarequests.datarequest", "?state__exact=submitted",
         lambda user: requests_visible_to(user).filter(state=State.SUBMITTED)),
        ("Budget requests waiting", "datarequests.budgetrequest", "?state__exact=submitted",
         lambda user: budget_requests_visible_to(user).filter(state=BudgetState.SUBMITTED)),
        ("Grants that hold", "permissions.grant", "?state=holds", lambda user: grants_visible_to(user).filter(live)),
    ]  # fmt: skip
    network: list[tuple[str, str, str, Callable[[User], QuerySet[Any]]]] = [
        ("Nodes", "network.node", "?state__exact=approved",
         lambda user: nodes_visible_to(user).filter(state=NodeState.APPROVED)),
        ("Announced datasets", "network.announcement", "", lambda user: Announcement.objects.all()),
    ]  # fmt: skip
    people: list[tuple[str, str, str, Callable[[User], QuerySet[Any]]]] = [
        (
            "Accounts",
            "accounts.user",
            "?is_active__exact=1",
            lambda user: users_visible_to(user).filter(is_active=True),
        ),
        ("Teams", "accounts.team", "", teams_visible_to),
    ]
    shown = [*(node if settings.GRID_ROLE == "node" else network), *people]
    return [
        {"name": name, "number": rows(user).count(), "url": _list(label) + filtered}
        for name, label, filtered, rows in shown
        if user.has_perm(label.replace(".", ".view_"))
    ]


def _list(label: str) -> str:
    return reverse(f"admin:{label.replace('.', '_')}_changelist")
