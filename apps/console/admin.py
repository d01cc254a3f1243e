"""Django finds the console's pages through this module."""

from django.contrib import admin
from django.contrib.auth.models import Group

from apps.console import (
    accounts,
    audit,
    compute,
    datarequests,
    datasets,
    network,
    node,
    permissions,
    plans,
    tags,
    tokens,
)

__all__ = [
    "accounts",
    "audit",
    "compute",
    "datarequests",
    "datasets",
    "network",
    "node",
    "permissions",
    "plans",
    "tags",
    "tokens",
]

# Rights come from roles; Django's own groups mean nothing here.
admin.site.unregister(Group)
