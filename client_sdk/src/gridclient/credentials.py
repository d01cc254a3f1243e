"""Sign-ins that the `gridsite` command keeps: a token for each address, never a password.

In `$XDG_CONFIG_HOME/gridsite/credentials.json` (else under `~/.config`), which only its owner may read. With each token
stands the key of the deployment that gave it: a token is sent only to who proves to hold that key.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from gridclient.http import Http
from gridclient.identity import proven_identity
from gridclient.wire.errors import AuthenticationError, InvalidInputError


class SignIn(msgspec.Struct, frozen=True):
    """One kept sign-in. `role`: "node" or "network"."""

    url: str
    role: str
    id: str
    username: str
    public_key: str
    token: str

    def __repr__(self) -> str:
        return f"<SignIn {self.username} at {self.url}>"


def path() -> Path:
    """Where the sign-ins are kept."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "gridsite" / "credentials.json"


def load() -> dict[str, SignIn]:
    """The kept sign-ins by address. Raises InvalidInputError for a file that others may read, or that is none."""
    try:
        with path().open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise InvalidInputError(f"Others may read {path()}, which holds tokens: chmod 600 {path()}")
            return msgspec.json.decode(file.read(), type=dict[str, SignIn])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError:
        raise InvalidInputError(f"{path()} is damaged: remove it, and sign in again.") from None


def keep(entry: SignIn) -> None:
    """Keep a sign-in, instead of an earlier one at the same address."""
    _write({**load(), entry.url: entry})


def forget(url: str) -> None:
    """Keep the sign-in at this address no longer."""
    _write({known: entry for known, entry in load().items() if known != url})


def checked_key(url: str, expected: str | None = None) -> tuple[str, str, str]:
    """Role, id and key of who answers at `url`, proven. Raises AuthenticationError, also where `expected` is not it."""
    stranger = Http(url)
    try:
        found = proven_identity(stranger)
    finally:
        stranger.close()
    if found is None:
        raise AuthenticationError(
            f"What answers at {url} does not prove its key for this address. Write the address as its operator gives "
            "it (of a grid on this machine: http://127.0.0.1:PORT)."
        )
    if expected not in (None, found["public_key"]):
        raise AuthenticationError(
            f"What answers at {url} has another key than when you signed in; nothing was sent to it. If its operator "
            f"says that this is right, sign out and in again: gridsite logout {url}"
        )
    return str(found["role"]), str(found["id"]), str(found["public_key"])


def _write(entries: dict[str, SignIn]) -> None:
    folder = path().parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A temporary file has mode 0600 from its beginning.
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(msgspec.json.format(msgspec.json.encode(entries)))
    os.replace(file.name, path())
