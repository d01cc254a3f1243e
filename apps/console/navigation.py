"""The console's sidebar: what this role of deployment has, and what this person may open."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

from apps.accounts.models import AccessToken, Role, Team, User
from apps.audit.models import AuditEvent
from apps.budgets.models import Domain, Release
from apps.compute.models import Disclosure, LiveSession, StoredAnswer
from apps.console.base import person
from apps.datarequests.models import BudgetRequest, DataRequest
from apps.datarequests.queries import budget_requests_i_may_decide, requests_i_may_decide
from apps.datasets.models import Dataset, DatasetVersion
from apps.network.models import Announcement, Membership, Node
from apps.permissions.models import Grant
from apps.plans.models import Plan
from apps.tags.models import Tag

# group -> (icon, model)
GROUPS: dict[str, list[tuple[str, Any]]] = {
    "Data": [
        ("inbox", DataRequest),
        ("database", Dataset),
        ("history", DatasetVersion),
        ("tag", Tag),
        ("key", Grant),
        ("functions", StoredAnswer),
        ("outbound", Disclosure),
        ("account_tree", Plan),
    ],
    "Privacy": [("request_quote", BudgetRequest), ("groups", Domain), ("blur_on", Release)],
    "Network": [("hub", Node), ("campaign", Announcement), ("hub", Membership)],
    "People": [("person", User), ("group", Team), ("badge", Role), ("vpn_key", AccessToken)],
    "Oversight": [("fact_check", AuditEvent), ("monitor_heart", LiveSession)],
}


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Groups of links. A link that a person may not open isn't shown, and would answer 403."""
    home = {"title": "Home", "icon": "home", "link": reverse("admin:index")}
    groups = [{"title": "", "separator": False, "items": [home]}]
    for title, links in GROUPS.items():
        pages = [(icon, admin.site.get_model_admin(model)) for icon, model in links]
        items = [_item(request, icon, page) for icon, page in pages if page.has_view_permission(request)]
        if items:
            groups.append({"title": title, "separator": True, "items": items})
    return groups


def _item(request: HttpRequest, icon: str, page: Any) -> dict[str, Any]:
    opts = page.opts
    item = {
        "title": page.plural,
        "icon": icon,
        "link": reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist"),
    }
    if page.model is DataRequest and (number := requests_i_may_decide(person(request)).count()):
        item |= {"badge": str(number), "link": f"{item['link']}?turn=me"}
    if page.model is BudgetRequest and (number := budget_requests_i_may_decide(person(request)).count()):
        item |= {"badge": str(number), "link": f"{item['link']}?state__exact=submitted"}
    return item
