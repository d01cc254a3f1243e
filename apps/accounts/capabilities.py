"""What accounts may do: the roles that a deployment begins with, and what each capability opens in the console."""

from __future__ import annotations

from collections.abc import Iterable

DATASETS_PUBLISH = "datasets.publish"
REQUESTS_REVIEW = "requests.review"
AUDIT_READ = "audit.read"
EVERYTHING_READ = "everything.read"
ACCOUNTS_MANAGE = "accounts.manage"
NETWORK_OPERATE = "network.operate"
NODE_OPERATE = "node.operate"
COMPUTE_USE = "compute.use"
CONSOLE_OPEN = "console.open"

ADMINISTRATOR = "administrator"

# name -> (title, capabilities): the rows that `seed` puts into the table of roles.
ROLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "owner": ("Data owner", (DATASETS_PUBLISH, COMPUTE_USE, CONSOLE_OPEN)),
    "scientist": ("Data scientist", (COMPUTE_USE,)),
    "reviewer": ("Reviewer", (REQUESTS_REVIEW, COMPUTE_USE, CONSOLE_OPEN)),
    "auditor": ("Auditor", (EVERYTHING_READ, AUDIT_READ, CONSOLE_OPEN)),
    ADMINISTRATOR: (
        "Administrator",
        (ACCOUNTS_MANAGE, NETWORK_OPERATE, NODE_OPERATE, AUDIT_READ, COMPUTE_USE, CONSOLE_OPEN),
    ),
}

# An account that signed in through a network has no roles; this is all it may do until someone gives it one.
FEDERATED = frozenset({COMPUTE_USE})

# capability -> app label -> actions of the console. Plans are deleted there by an act and all else never, so "delete"
# is in no row; datasets are published by the client, so they have no "add".
CONSOLE: dict[str, dict[str, frozenset[str]]] = {
    EVERYTHING_READ: {
        label: frozenset({"view"})
        for label in (
            "accounts",
            "audit",
            "budgets",
            "compute",
            "datarequests",
            "datasets",
            "network",
            "permissions",
            "plans",
            "tags",
        )
    },
    COMPUTE_USE: {"plans": frozenset({"view"})},
    AUDIT_READ: {"audit": frozenset({"view"})},
    ACCOUNTS_MANAGE: {"accounts": frozenset({"view", "add", "change"}), "plans": frozenset({"view"})},
    NETWORK_OPERATE: {"network": frozenset({"view", "change"})},
    REQUESTS_REVIEW: {
        "budgets": frozenset({"view", "change"}),
        "datarequests": frozenset({"view", "change"}),
        "datasets": frozenset({"view"}),
    },
    DATASETS_PUBLISH: {
        "budgets": frozenset({"view", "add", "change"}),
        "compute": frozenset({"view"}),
        "datarequests": frozenset({"view", "change"}),
        "datasets": frozenset({"view", "change"}),
        "permissions": frozenset({"view", "add", "change"}),
        "tags": frozenset({"view"}),
    },
}
# Written by verbs only, never by a form. The counters of the lock-out and ownership have no page: the key of the one
# is an HMAC that nobody could read (the audit log has the refusals), and a dataset's page names its owner.
READ_ONLY = frozenset({"accounts.role", "accounts.accesstoken"})


def console_actions(capabilities: Iterable[str], label: str, model: str = "") -> frozenset[str]:
    """The console's actions ("view", "add", "change") that these capabilities open on an app or one of its models."""
    actions = frozenset[str]().union(*(CONSOLE.get(each, {}).get(label, frozenset()) for each in capabilities))
    return actions & {"view"} if f"{label}.{model}" in READ_ONLY else actions
