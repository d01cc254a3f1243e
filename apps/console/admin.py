"""Django finds the console's pages through this module."""

from django.contrib import admin
from django.contrib.auth.models import Group

from apps.console import (
    accounts,
    audit,
    budget_requests,
    budgets,
    compute,
    datarequests,
    datasets,
    network,
    node,
    permissions,
    plans,
    releases,
    tags,
    tokens,
)

__all__ = [
    "accounts",
    "audit",
    "budget_requests",
    "budgets",
    "compute",
    "datarequests",
    "datasets",
    "network",
    "node",
    "permissions",
    "plans",
    "releases",
    "tags",
    "tokens",
]

# Rights come from roles; Django's own groups mean nothing here.
admin.site.unregister(Group)
