"""A whole grid on one machine, for development: one process a deployment, all of them bound to this one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from gridsite.deployment import Deployment, host_and_port
from gridsite.processes import SHORTEST_LIFE, bound_to_this_process
from gridsite.server import listen
from gridsite.serving import port_refusal

HOST = "127.0.0.1"
NETWORK = "network"
PATIENCE = 180.0
"""Seconds that a deployment gets to come up."""
GRACE = 8.0
"""Seconds that deployments get to end before they are killed."""


class GridRefusal(Exception):
    """Why the grid does not run, in words for the person who started it."""


def write_private(path: Path, value: Any) -> None:
    """Replace `path` by the JSON of `value` in one step, mode 0600."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(value, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


class Grid:
    """Use as a context manager: leaving it stops every deployment.

    Listening sockets are opened here and inherited, so that a port is refused before anything starts, callers wait
    instead of failing while a deployment comes up, and a deployment that crashed can be started again behind them.
    """

    def __init__(self, folder: Path, names: list[str], port: int, *, database: str = "", redis: str = "") -> None:
        wrong = [name for name in names if not re.fullmatch(r"[a-z][a-z0-9-]{0,38}", name) or name == NETWORK]
        if not names or wrong or len(set(names)) != len(names):
            raise GridRefusal(
                "--nodes takes different names of lower-case letters, digits and hyphens, separated by commas; "
                f"'{NETWORK}' is taken." + (f" Wrong: {', '.join(wrong)}." if wrong else "")
            )
        self.folder = folder.resolve()
        self.names = [NETWORK, *names]
        self.port = port
        # Every deployment has a database of its own.
        if database and "{name}" not in database:
            raise GridRefusal("--database must hold {name}, in the place of which each deployment's name is put.")
        self.database, self.redis = database, redis
        self.deployments: list[Deployment] = []
        self.listeners: dict[str, socket.socket] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.started: dict[str, float] = {}

    # --- its folder ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Grid:
        self.folder.mkdir(parents=True, exist_ok=True)
        # The kernel releases the lock when this process ends, however it ends: no lock is ever stale.
        self.lock = (self.folder / "lock").open("a")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise GridRefusal(f"Another grid is running in {self.folder}. Stop it, or choose another --dir.") from None
        try:
            self._open_ports()
            self.credentials = self._load_credentials()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def credentials_file(self) -> Path:
        return self.folder / "credentials.json"

    def _load_credentials(self) -> dict[str, dict[str, str]]:
        known: dict[str, dict[str, str]] = {}
        with suppress(FileNotFoundError):
            known = json.loads(self.credentials_file.read_text())
        for name in self.names:
            known.setdefault(name, {"username": "admin", "password": secrets.token_urlsafe(18)})
        write_private(self.credentials_file, known)
        return known

    def _open_ports(self) -> None:
        for index, name in enumerate(self.names):
            port = self.port + index if self.port else 0
            try:
                self.listeners[name] = listen(HOST, port)
            except OSError as error:
                raise GridRefusal(port_refusal(port, error)) from None
        urls = {name: f"http://{HOST}:{listener.getsockname()[1]}" for name, listener in self.listeners.items()}
        outbound = tuple(host_and_port(url) for url in urls.values())
        for name, url in urls.items():
            role = "network" if name == NETWORK else "node"
            network_url = "" if name == NETWORK else urls[NETWORK]
            own = {"GRID_GUEST_SEARCH": "true"} if name == NETWORK else {}
            if self.database:
                own["GRID_DATABASE_URL"] = self.database.replace("{name}", name)
            if self.redis:
                own["GRID_REDIS_URL"] = self.redis
            self.deployments.append(Deployment(role, name, self.folder / name, url, network_url, outbound, own))

    # --- its processes ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all deployments, and return when every one answers and every node belongs to the network."""
        for deployment in self.deployments:
            self._spawn(deployment)
        end = time.monotonic() + PATIENCE
        with httpx.Client(timeout=5, trust_env=False) as client:
            keys = {deployment.name: self._identity(client, deployment, end) for deployment in self.deployments}
            self._approve_nodes(client, keys, end)

    def _spawn(self, deployment: Deployment) -> None:
        deployment.folder.mkdir(exist_ok=True)
        descriptor = self.listeners[deployment.name].fileno()
        with (deployment.folder / "server.log").open("ab") as log:
            self.processes[deployment.name] = subprocess.Popen(
                deployment.command("--fd", str(descriptor), "--credentials", str(self.credentials_file)),
                env=deployment.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[descriptor],
                # Ctrl-C reaches this process only, which then stops them in order.
                start_new_session=True,
                preexec_fn=bound_to_this_process(),
            )
        self.started[deployment.name] = time.monotonic()

    def watch(self) -> None:
        """Wait for ever; start a deployment that ended again. Raises GridRefusal for one that does not stay up."""
        while True:
            time.sleep(0.25)
            for deployment in self.deployments:
                if self.processes[deployment.name].poll() is not None:
                    self._check_alive(deployment, shortest=SHORTEST_LIFE)
                    self._end_group(deployment.name)
                    self._spawn(deployment)

    def stop(self) -> None:
        """End every process, politely at first; close ports; release the folder. Takes less than 10 seconds."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + GRACE
        for name, process in self.processes.items():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            self._end_group(name)
        for listener in self.listeners.values():
            listener.close()
        self.lock.close()

    def _end_group(self, name: str) -> None:
        """Kill what is left of a deployment: its process and those that compute for it."""
        with suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()

    def _check_alive(self, deployment: Deployment, *, shortest: float = float("inf")) -> None:
        status = self.processes[deployment.name].poll()
        if status is not None and time.monotonic() - self.started[deployment.name] < shortest:
            log = deployment.folder / "server.log"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise GridRefusal(f"{deployment.name} ended with status {status}. The end of {log}:\n{last}")

    # --- becoming a grid ----------------------------------------------------------------------------------------

    def _identity(self, client: httpx.Client, deployment: Deployment, end: float) -> str:
        """The public key of a deployment, as soon as it answers."""
        while True:
            self._check_alive(deployment)
            # Its socket is open already: the call waits in line until the deployment is up.
            with suppress(httpx.TransportError):
                answer = client.get(f"{deployment.url}/api/identity/")
                if answer.status_code == 200:
                    return str(answer.json()["public_key"])
            self._check_time(end, f"{deployment.name} does not answer.")
            time.sleep(0.05)

    def _approve_nodes(self, client: httpx.Client, keys: dict[str, str], end: float) -> None:
        """Approve this grid's own nodes, recognised by their keys, as the network's administrator."""
        base = self.deployments[0].url
        account = self.credentials[NETWORK]
        answer = client.post(f"{base}/api/sign-in/", json=account)
        if answer.status_code != 200:
            raise GridRefusal(
                f"The network refused the sign-in of {account['username']!r} in {self.credentials_file} "
                f"({answer.status_code}). Put the password that was set since then into that file."
            )
        client.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        missing = {keys[deployment.name]: deployment for deployment in self.deployments[1:]}
        problem = ""
        while missing:
            for deployment in self.deployments:
                self._check_alive(deployment)
            for node in client.get(f"{base}/api/nodes/").json()["results"]:
                own = missing.get(node["public_key"])
                if own is None or node["url"] != own.url:
                    continue  # not ours, or not yet told that it has another port now
                if node["state"] == "pending":
                    reply = client.post(f"{base}/api/nodes/{node['id']}/approve/", json={"reason": "This grid's own."})
                    problem = "" if reply.status_code == 200 else reply.text
                elif node["state"] == "approved" and node["last_seen"] > node["decided_at"]:
                    del missing[node["public_key"]]  # it has heard of the decision
            if missing:
                names = ", ".join(deployment.name for deployment in missing.values())
                self._check_time(end, f"Not yet members of the network: {names}. {problem}")
                time.sleep(0.05)
        client.post(f"{base}/api/sign-out/")

    def _check_time(self, end: float, problem: str) -> None:
        if time.monotonic() > end:
            raise GridRefusal(f"{problem} Look into server.log in the folders of {self.folder}.")

    def write_ready(self, file: Path) -> None:
        """Write addresses and sign-ins, in one step: who can read the file reads all of it."""
        entries = {d.name: {"url": d.url, "admin": self.credentials[d.name]} for d in self.deployments}
        network = entries.pop(NETWORK)
        write_private(file.resolve(), {NETWORK: network, "nodes": entries})
