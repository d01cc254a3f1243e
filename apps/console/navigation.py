"""The console's sidebar: what this role of deployment has, and what this person may open."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from apps.console.base import person
from apps.datarequests.queries import requests_i_may_decide

# title, icon, admin view, permission
DATA = [
    ("Requests", "inbox", "datarequests_datarequest", "datarequests.view_datarequest"),
    ("Datasets", "database", "datasets_dataset", "datasets.view_dataset"),
    ("Grants", "key", "permissions_grant", "permissions.view_grant"),
    ("Released aggregates", "functions", "compute_storedanswer", "compute.view_storedanswer"),
]
NETWORK = [
    ("Nodes", "hub", "network_node", "network.view_node"),
    ("Announcements", "campaign", "network_announcement", "network.view_announcement"),
]
PEOPLE = [
    ("Accounts", "person", "accounts_user", "accounts.view_user"),
    ("Teams", "group", "accounts_team", "accounts.view_team"),
    ("Access tokens", "vpn_key", "accounts_accesstoken", "accounts.view_accesstoken"),
]
OVERSIGHT = [("Audit log", "fact_check", "audit_auditevent", "audit.view_auditevent")]
MEMBERSHIP = [("Membership", "hub", "network_membership", "network.view_membership")]


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Groups of links. A link that a person may not open isn't shown, and would answer 403."""
    node = settings.GRID_ROLE == "node"
    groups = [
        ("", [("Home", "home", "", "")]),
        *([("Data", DATA), ("Network", MEMBERSHIP)] if node else [("Network", NETWORK)]),
        ("People", PEOPLE),
        ("Oversight", OVERSIGHT),
    ]
    return [
        {"title": title, "separator": bool(title), "items": items}
        for title, links in groups
        if (items := [_item(request, *link) for link in links if _shown(request, link[3])])
    ]


def _shown(request: HttpRequest, permission: str) -> bool:
    return not permission or person(request).has_perm(permission)


def _item(request: HttpRequest, title: str, icon: str, view: str, permission: str) -> dict[str, Any]:
    item = {"title": title, "icon": icon, "link": reverse(f"admin:{view}_changelist" if view else "admin:index")}
    if view == "datarequests_datarequest" and (number := requests_i_may_decide(person(request)).count()):
        item["badge"] = str(number)
    return item
