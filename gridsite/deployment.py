"""One deployment of this machine: its environment, its secret, and how its process is run."""

from __future__ import annotations

import ipaddress
import os
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from apps.core.keys import load_or_create

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"


def is_loopback(url: str) -> bool:
    """Whether only this machine can follow `url`."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def host_and_port(url: str) -> str:
    """`host:port` of a URL, the port spelled out."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def keep_secret(path: Path) -> None:
    """Make a secret key at `path`, mode 0600, unless one is there."""
    load_or_create(path, lambda: secrets.token_urlsafe(64).encode())


@dataclass(frozen=True)
class Deployment:
    role: str
    name: str
    folder: Path
    url: str
    network_url: str = ""
    outbound: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def secret_file(self) -> Path:
        return self.folder / "keys" / "secret.key"

    def environment(self) -> dict[str, str]:
        """Environment of its process: this process's, with every GRID_ variable replaced by this deployment's own."""
        keep_secret(self.secret_file)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRID_")}
        return inherited | {
            "GRID_ROLE": self.role,
            "GRID_NAME": self.name,
            "GRID_DIR": str(self.folder),
            "GRID_URL": self.url,
            "GRID_NETWORK_URL": self.network_url,
            "GRID_OUTBOUND_ALLOW": ",".join(self.outbound),
            "GRID_SECRET_KEY_FILE": str(self.secret_file),
            "GRID_DEVELOPMENT": "true",
            **self.settings,
        }

    def command(self, *arguments: str) -> list[str]:
        """Command line of its process."""
        return [sys.executable, str(MANAGE), f"run{self.role}", *arguments]
