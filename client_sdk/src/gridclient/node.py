"""A node: where data is. Made by `connect`, or found through a network."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gridclient import html
from gridclient.admin import Administration
from gridclient.budgets import Budgets
from gridclient.connection import Connection
from gridclient.datasets import Dataset
from gridclient.discovery import Discovery
from gridclient.http import Http, checked_url, new_key
from gridclient.identity import Account, identity_of, sign_in, with_token
from gridclient.listings import DATASETS, PLANS, POINTERS, REQUESTS, Listing
from gridclient.program.graph import Node as ProgramNode
from gridclient.program.graph import Ref
from gridclient.records import OpenSession
from gridclient.requests import DataRequest, GetNotPermittedError, checked_reason
from gridclient.wire import messages as m
from gridclient.wire.errors import (
    AuthenticationError,
    ConnectionLostError,
    GridError,
    InvalidInputError,
    NotFoundError,
)
from gridclient.wire.errors import GetNotPermittedError as Refused

if TYPE_CHECKING:
    import torch

    from gridclient.plans import Plan, StoredPlan
    from gridclient.private import Estimate
    from gridclient.recorder import Recorder
    from gridclient.transfers import Buffer

_alive: weakref.WeakSet[Node] = weakref.WeakSet()
_connected: list[Node] = []
# What pointers, requests and plans ask of their node. Completion offers what people ask.
_OF_THE_LIBRARY = frozenset(
    "account append constant drop entered fetch get http keep_plan mock node_id pointer publish recorder request "
    "submit take value".split()
)


class Node(Administration, Budgets, Discovery):
    """A node and my account on it. It is signed in to at the first call that needs it. Thread-safe."""

    def __init__(self, *, id: str, name: str, url: str, public_key: str, enter: Callable[[], Account]) -> None:
        self.id = self.node_id = id
        self.name = name
        self.url = url
        self.public_key = public_key
        self._enter = enter
        self._entering = threading.Lock()
        self._account: Account | None = None
        self._making = threading.Lock()
        self._recorder: Recorder | None = None
        self._connection = Connection(lambda: (self.account.http.url, self.account.http.token))
        _alive.add(self)

    def __repr__(self) -> str:
        who = f" as {html.plain(self._account.username)}" if self._account else ""
        state = ", reconnecting" if self.reconnecting else ", lost" if self.lost else ""
        return f"<Node {html.plain(self.id)} at {html.plain(self.url)}{who}{state}>"

    def _repr_html_(self) -> str:
        # Nothing is asked of the node in order to show it.
        account = self._account
        facts = {
            "name": html.text(self.name),
            "address": html.link(self.url),
            "key": html.text(self.public_key[:16]),
            "user": html.text(account.username if account else "not signed in yet"),
            "rights": html.text(account.rights if account else None),
            "token only for": html.text(account.scopes if account else None),
            "session": "reconnecting" if self.reconnecting else "lost: connect again" if self.lost else "",
        }
        return html.card("Node", self.id, facts)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__()} - _OF_THE_LIBRARY)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def account(self) -> Account:
        """My account here, signed in."""
        with self._entering:
            if self._account is None:
                self._account = self._enter()
            return self._account

    @property
    def entered(self) -> bool:
        """Whether I have signed in here already."""
        return self._account is not None

    @property
    def http(self) -> Http:
        return self.account.http

    @property
    def user(self) -> str:
        """My username here."""
        return self.account.username

    @property
    def rights(self) -> tuple[str, ...]:
        """What my roles allow here; a token may allow less (`scopes`)."""
        return self.account.rights

    @property
    def scopes(self) -> tuple[str, ...] | None:
        """What my access token was made for: some of read, compute, publish, govern; None: all of my rights."""
        return self.account.scopes

    @property
    def lost(self) -> bool:
        """Whether the session has ended: connect again."""
        return self._connection.lost

    @property
    def reconnecting(self) -> bool:
        """Whether the connection was lost and is being brought back; what waits goes on by itself."""
        return self._connection.reconnecting

    # --- find and publish ---------------------------------------------------------------------------------------

    def datasets(self, *terms: str, limit: int | None = None) -> Listing[Dataset]:
        """What I may see here, newest first; with terms only what all of them match, as in `search`."""
        rows, more = self.http.some("datasets/", most=limit, q=list(terms))
        return Listing((Dataset(self, row) for row in rows), DATASETS, more=more)

    def dataset(self, name: str) -> Dataset:
        """One dataset by its name. Raises NotFoundError, alike for absent and for not mine to see."""
        return Dataset(self, self._one("dataset", name))

    def search(self, *terms: str, limit: int | None = 1000) -> Listing[Any]:
        """Pointers to what every term matches: a tag ("#births"), or a word of name, description or tags."""
        found = self.datasets(*terms, limit=limit)
        return Listing((dataset.pointer() for dataset in found), POINTERS, more=found.more)

    def requests(self, state: str | None = None) -> Listing[DataRequest]:
        """Requests, oldest first: mine, and those that I may look at."""
        return Listing((DataRequest(self, row) for row in self.http.pages("requests/", state=state)), REQUESTS)

    def sessions(self) -> Listing[OpenSession]:
        """The sessions that are open here, newest first: everybody's for administrators and auditors, mine for me."""
        return OpenSession.listed(self.http.pages("sessions/"), http=self.http)

    def publish(self, spec: m.PublishSpec, values: Sequence[Buffer], mock: Sequence[Buffer] | None) -> Dataset:
        """Upload and publish. Raises InvalidInputError with every problem, PublishNotPermittedError."""
        key = new_key()

        def steps(era: int) -> m.NodeCommand:
            transfer = self._connection.upload(values, "values", f"publishing {spec.name or spec.kind}")
            mocked = 0 if mock is None else self._connection.upload(mock, "mock", "publishing the mock")
            return self._connection.ask(lambda ask: m.Publish(ask, spec, transfer, mocked, key), era)

        reply = self._connection.whole(steps)
        if not isinstance(reply, m.Published):
            raise _confused()
        return Dataset(self, reply.dataset)

    # --- plans --------------------------------------------------------------------------------------------------

    def plans(self) -> Listing[StoredPlan]:
        """The plans that I may run here, newest first."""
        from gridclient.plans import StoredPlan

        return Listing((StoredPlan(self, row) for row in self.http.pages("plans/")), PLANS)

    def plan(self, name: str, *, download: bool = True) -> Plan | StoredPlan:
        """One plan by its name: a copy of it, or with `download=False` what runs it here.

        Raises NotFoundError; NotPermittedError where its owner lets nobody copy it.
        """
        from gridclient.plans import StoredPlan

        stored = StoredPlan(self, self._one("plan", name))
        return stored.download() if download else stored

    def keep_plan(self, data: bytes, *, name: str, allow_download: bool) -> dict[str, Any]:
        """Upload a plan; what the node tells of it."""
        key = new_key()

        def steps(era: int) -> m.NodeCommand:
            transfer = self._connection.upload([data], "plan", f"sending {name}")
            return self._connection.ask(lambda ask: m.Plan(ask, transfer, allow_download, key), era)

        reply = self._connection.whole(steps)
        if not isinstance(reply, m.Planned):
            raise _confused()
        return reply.plan

    def _one(self, kind: str, name: str) -> Any:
        try:
            return self.http.get(f"{kind}s/{quote(name, safe='')}/")
        except NotFoundError as error:
            raise NotFoundError(
                f"There is no {kind} {name!r} on {self.id}, or none for you; node.{kind}s() lists what there is.",
                **error.details,
            ) from None

    # --- the recorder's channel ---------------------------------------------------------------------------------

    @property
    def recorder(self) -> Recorder:
        """What records operations on this node's pointers."""
        from gridclient.recorder import Recorder

        with self._making:
            if self._recorder is None:
                self._recorder = Recorder(self)
            return self._recorder

    def pointer(self, dataset: Dataset) -> Any:
        """A pointer to the values of a dataset. Nothing is asked of the node."""
        from gridclient.tables import TablePointer
        from gridclient.values import DTYPES

        if dataset.kind == "table":
            return TablePointer(self.recorder, dataset)
        return self.recorder.input_asset(
            dataset.id, dataset.version, dataset.shape, DTYPES[dataset.dtype], info=dataset
        )

    def mock(self, dataset: Dataset) -> Any:
        """The public mock data of a dataset: a tensor, or an Arrow table."""
        from gridclient.values import DTYPES

        if dataset.kind == "table":
            table = self.recorder.input_table(dataset.id, dataset.version, "mock")
            return self.get(table.ref, table)
        dtype = DTYPES[dataset.dtype]
        return self.recorder.input_asset(dataset.id, dataset.version, dataset.shape, dtype, "mock", info=dataset).get()

    def append(self, node: ProgramNode, held: Sequence[Ref] = ()) -> None:
        """Queue a node of the program."""
        self._connection.append(node, held)

    def constant(self, digest: str, tensor: torch.Tensor) -> None:
        """Make a constant known, before the nodes that are appended after it."""
        from gridclient.values import bytes_of, header_of

        self._connection.constant(digest, header_of(tensor), bytes_of(tensor))

    def drop(self, ref: Ref) -> None:
        """A value is held no longer. Callable from a finaliser."""
        self._connection.drop(ref)

    def get(self, ref: Ref, pointer: Any, *, epsilon: float | None = None, within: float | None = None) -> Any:
        """The value: a tensor on the CPU, or an Arrow table. Raises GetNotPermittedError with `.request()`.

        With `epsilon` or `within`: a private answer, whose `.receipt` says what it was charged.
        """
        from gridclient import private

        epsilon, within = private.checked(epsilon, within)
        key = "" if epsilon is None and within is None else new_key()
        try:
            return self.value(lambda ask: m.Get(ask, ref, epsilon, within, key))
        except Refused as error:
            raise GetNotPermittedError(error, lambda reason: self.request(ref, reason, pointer)) from None

    def estimate(self, ref: Ref, *, epsilon: float | None = None, within: float | None = None) -> Estimate:
        """What a private answer would cost. Free; nothing private is computed for it."""
        from gridclient import private

        epsilon, within = private.checked(epsilon, within)
        reply = self._connection.ask(lambda ask: m.Estimate(ask, ref, epsilon, within))
        if not isinstance(reply, m.Estimated):
            raise _confused()
        return private.estimate_of(reply.estimate)

    def take(self, module_id: str, names: Sequence[str], pointers: Sequence[Any]) -> dict[str, torch.Tensor]:
        """The state of a module that was sent, by name. Raises GetNotPermittedError with `.request()`."""
        from gridclient.states import take

        return take(self, module_id, names, pointers)

    def request(self, ref: Ref, reason: str, pointer: Any) -> DataRequest:
        """Put the program behind a value into the queue."""
        text = checked_reason(reason)
        return self.submit(lambda ask, key: m.Request(ask, ref, text, key=key))

    def submit(self, make: Callable[[int, str], m.Request]) -> DataRequest:
        """Put what `make(ask, key)` says into the queue."""
        key = new_key()
        reply = self._connection.ask(lambda ask: make(ask, key))
        if not isinstance(reply, m.Submitted):
            raise _confused()
        return DataRequest(self, self.http.get(f"requests/{reply.request}/"))

    def fetch(self, request: str) -> Any:
        """The stored answer of an approved request."""
        return self.value(lambda ask: m.Fetch(ask, request))

    def value(self, make: Callable[[int], m.ClientCommand]) -> Any:
        """Ask for a value, decoded: a tensor, an Arrow table, or tensors by name."""
        from gridclient.values import decode

        return decode(*self._connection.value(make))

    def close(self) -> None:
        """End the session, and the token that signing in made. Values and requests stay on the node."""
        if self in _connected:
            _connected.remove(self)
        _alive.discard(self)
        self._connection.close()
        account = self._account
        if account is not None:
            # It would expire by itself, and the node may be gone already.
            with contextlib.suppress(GridError):
                if account.session:
                    account.http.sign_out()
            account.http.close()


def connect(url: str, *, username: str | None = None, password: str | None = None, token: str | None = None) -> Node:
    """Connect to a node, with a username and password or with an access token (or from GRID_TOKEN).

    Raises ConnectionLostError (nobody there), VersionMismatchError, AuthenticationError.
    """
    address = checked_url(url)
    token = token or (os.environ.get("GRID_TOKEN") if username is None and password is None else None)
    check_credentials(username, password, token)
    stranger = Http(address)
    try:
        identity = identity_of(stranger, role="node")
    finally:
        stranger.close()
    account = sign_in(address, username, password) if username and password else with_token(address, token or "")
    node = Node(
        id=str(identity["id"]),
        name=str(identity["name"]),
        url=address,
        public_key=str(identity["public_key"]),
        enter=lambda: account,
    )
    _ = node.account
    _connected.append(node)
    return node


def check_credentials(username: str | None, password: str | None, token: str | None) -> None:
    """Raise unless there is a username with a password, or else a token."""
    if token and (username or password):
        raise InvalidInputError("Give username and password, or token; not both.")
    if bool(username) != bool(password):
        raise InvalidInputError("username and password belong together.")
    if not token and not username:
        raise AuthenticationError("Who are you? Give username= and password=, or token=, or set GRID_TOKEN.")


def connected_to(public_key: str) -> list[Node]:
    """This process's open `connect` connections to the node with this key."""
    return [node for node in list(_connected) if node.public_key == public_key and not node.lost]


def _confused() -> GridError:
    return ConnectionLostError("The node answered something else than what was asked. Connect again.")


@atexit.register
def _close_all() -> None:
    for node in list(_alive):
        node.close()
