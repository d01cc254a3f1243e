"""Checks of a deployment's settings: `manage.py check --deploy`. Commands that serve refuse to start on an error."""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from gridsite.deployment import is_loopback

Apps = Sequence[AppConfig] | None

SHORTEST_SECRET = 50
FEWEST_DIFFERENT = 12
_NEW_USER_AND_NETWORK = 0x1000_0000 | 0x4000_0000


@register("grid", deploy=True)
def check_secret(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """A secret that can be guessed lets anyone forge the console's sessions."""
    try:
        secret = settings.SECRET_KEY
    except ImproperlyConfigured:  # it is empty
        secret = ""
    if len(secret) >= SHORTEST_SECRET and len(set(secret)) >= FEWEST_DIFFERENT:
        return []
    return [
        Error(
            f"GRID_SECRET_KEY needs at least {SHORTEST_SECRET} characters, {FEWEST_DIFFERENT} of them different.",
            hint="Make one with: python -c 'import secrets; print(secrets.token_urlsafe(64))'",
            id="grid.E001",
        )
    ]


@register("grid", deploy=True)
def check_address(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Passwords and tokens travel unencrypted on this machine only."""
    found: list[CheckMessage] = []
    url = urlsplit(settings.GRID_URL)
    if settings.GRID_DEVELOPMENT and not is_loopback(settings.GRID_URL):
        found.append(
            Error(
                "GRID_DEVELOPMENT is on, but GRID_URL can be reached from other machines.",
                hint="Unset GRID_DEVELOPMENT and serve https behind a proxy, or use an address of this machine.",
                id="grid.E002",
            )
        )
    if not settings.GRID_DEVELOPMENT and url.scheme != "https":
        found.append(
            Error(
                "GRID_URL must begin with https://: passwords and tokens travel to it.",
                hint="On this machine alone, GRID_DEVELOPMENT=true allows http.",
                id="grid.E003",
            )
        )
    if not _answers_to(url.hostname or ""):
        found.append(
            Error(
                "GRID_ALLOWED_HOSTS does not hold the host of GRID_URL: every request to it would be refused.",
                hint="Add the host name to GRID_ALLOWED_HOSTS.",
                id="grid.E004",
            )
        )
    if "*" in settings.ALLOWED_HOSTS:
        found.append(Error("GRID_ALLOWED_HOSTS must name hosts, not '*'.", id="grid.E005"))
    return found


def _answers_to(host: str) -> bool:
    return any(
        host == allowed or (allowed.startswith(".") and (host.endswith(allowed) or host == allowed[1:]))
        for allowed in settings.ALLOWED_HOSTS
    )


@register("grid", deploy=True)
def check_key_folder(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Who reads the signing key can sign an audit log of their own."""
    folder = settings.GRID_KEYS_DIR
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return [
            Error("GRID_KEYS_DIR can be read by other accounts of this machine.", hint="chmod 700 it.", id="grid.E006")
        ]
    return []


@register("grid", deploy=True)
def check_worker_isolation(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Workers take themselves off the network; where the kernel refuses that, the operator should know."""
    if settings.GRID_ROLE != "node" or can_isolate():
        return []
    return [
        Warning(
            "The kernel refuses user and network namespaces: session workers keep the network of this process.",
            hint="Allow unprivileged user namespaces, or run the node where outbound connections are blocked.",
            id="grid.W001",
        )
    ]


@register("grid", deploy=True)
def check_cluster(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """A node whose sessions run elsewhere knows where, and speaks with it."""
    found: list[CheckMessage] = []
    if settings.GRID_ROLE != "node" or settings.GRID_WORKERS != "ray":
        return found
    if not settings.GRID_RAY_ADDRESS:
        found.append(
            Error(
                "GRID_WORKERS is ray, but GRID_RAY_ADDRESS names no cluster.",
                hint="Set it to host:port of the cluster's head.",
                id="grid.E007",
            )
        )
    if find_spec("ray") is None:
        found.append(
            Error(
                "GRID_WORKERS is ray, but Ray is not installed.",
                hint="pip install -r requirements-ray.txt",
                id="grid.E008",
            )
        )
    return found


def can_isolate() -> bool:
    """Whether a process of this account can leave the network, tried in a child."""
    if not sys.platform.startswith("linux"):
        return False
    unshare = ctypes.CDLL(None).unshare
    child = os.fork()
    if child == 0:
        os._exit(0 if unshare(_NEW_USER_AND_NETWORK) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
