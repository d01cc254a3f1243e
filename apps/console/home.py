"""The home page: what needs me, and how much there is."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from apps.accounts.queries import users_visible_to
from apps.console.base import person
from apps.console.datarequests import shape_words
from apps.datarequests.queries import requests_i_may_decide, requests_visible_to
from apps.datarequests.transitions import State
from apps.network.models import Node
from apps.network.models import State as NodeState
from apps.network.queries import nodes_visible_to
from apps.permissions.queries import datasets_visible_to, grants_visible_to

SHOWN = 10


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Fill the home page's context, for this person's eyes."""
    return {
        **context,
        "title": "Home",
        "needs_me": _needs_me(request),
        "counts": _counts(request),
        "role": settings.GRID_ROLE,
    }


def _needs_me(request: HttpRequest) -> list[dict[str, str]]:
    user = person(request)
    waiting = [
        {
            "text": f"{item.requester.username} asks for {shape_words(item)}",
            "why": item.reason,
            "url": reverse("admin:datarequests_datarequest_change", args=[item.pk]),
        }
        for item in requests_i_may_decide(user)[:SHOWN]
    ]
    if user.has("network.operate"):
        waiting += [
            {
                "text": f"{node.name} wants to join the network",
                "why": node.url,
                "url": reverse("admin:network_node_change", args=[node.pk]),
            }
            for node in Node.objects.filter(state=NodeState.PENDING)[:SHOWN]
        ]
    return waiting


def _counts(request: HttpRequest) -> list[dict[str, Any]]:
    user = person(request)
    listed: list[tuple[str, Any, str]] = []
    if settings.GRID_ROLE == "node":
        listed += [
            ("Datasets", datasets_visible_to(user), "datasets_dataset"),
            ("Grants", grants_visible_to(user).filter(revoked_at=None), "permissions_grant"),
            (
                "Requests waiting",
                requests_visible_to(user).filter(state=State.SUBMITTED),
                "datarequests_datarequest",
            ),
        ]
    else:
        listed += [("Nodes", nodes_visible_to(user), "network_node")]
    if user.has("accounts.manage") or user.has("everything.read"):
        listed += [("Accounts", users_visible_to(user).filter(is_active=True), "accounts_user")]
    return [
        {"name": name, "number": rows.count(), "url": reverse(f"admin:{view}_changelist")}
        for name, rows, view in listed
    ]
