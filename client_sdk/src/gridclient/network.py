"""A network: it knows which nodes exist and finds datasets on them. The data stay there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from gridclient import html
from gridclient.admin import Administration
from gridclient.datasets import Dataset
from gridclient.discovery import Discovery
from gridclient.http import Http, checked_url
from gridclient.identity import Account, identity_of, sign_in, with_assertion, with_token
from gridclient.listings import DATASETS, POINTERS, Found, Listing
from gridclient.node import Node, check_credentials, connected_to
from gridclient.records import Member
from gridclient.wire.errors import AuthenticationError, GridError, InvalidInputError


class GridNetwork(Administration, Discovery):
    """A network, as a guest or signed in. What a search finds can be used at once, on the node where it is."""

    def __init__(self, identity: Mapping[str, Any], http: Http, account: Account | None) -> None:
        self.id = str(identity["id"])
        self.name = str(identity["name"])
        self.url = http.url
        self._http = http
        self._account = account
        self._lock = threading.Lock()
        self._found: dict[tuple[str, str, str], Node] = {}
        self._attached: dict[str, Node] = {}

    def __repr__(self) -> str:
        who = f"as {html.plain(self._account.username)}" if self._account else "as a guest"
        return f"<GridNetwork {html.plain(self.name)} at {html.plain(self.url)} {who}>"

    def _repr_html_(self) -> str:
        facts = {
            "address": html.link(self.url),
            "user": html.text(self.user or "guest"),
            "rights": html.text(self.rights),
            "token only for": html.text(self._account.scopes if self._account else None),
        }
        return html.card("GridNetwork", self.name, facts)

    def __enter__(self) -> GridNetwork:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def http(self) -> Http:
        return self._http

    @property
    def user(self) -> str | None:
        """My username on the network; None for a guest."""
        return self._account.username if self._account else None

    @property
    def rights(self) -> tuple[str, ...]:
        """What my roles allow on the network."""
        return self._account.rights if self._account else ()

    def search(self, *terms: str, limit: int | None = 1000) -> Found[Any]:
        """Pointers by node id, newest first. Every term must match: a tag ("#births"), or a tag or a whole word.

        The newest `limit` of them (None: all); `.more` of the result tells whether there are others.
        """
        rows, more = self._http.some("search/", most=limit, q=list(terms))
        found: Found[Any] = Found(more=more)
        for row in rows:
            found.setdefault(str(row["node"]["id"]), Listing(columns=POINTERS)).append(self._dataset(row).pointer())
        return found

    def datasets(self, *terms: str, limit: int | None = 1000) -> Listing[Dataset]:
        """What `search` finds, as datasets: public metadata only."""
        rows, more = self._http.some("search/", most=limit, q=list(terms))
        # A network does not know my rights on its nodes.
        shown = {name: value for name, value in DATASETS.items() if name != "rights"}
        columns = {"node": lambda dataset: dataset.location.id, **shown}
        return Listing((self._dataset(row) for row in rows), columns, more=more)

    def iter_datasets(self, *terms: str) -> Iterator[Dataset]:
        """What `search` finds without a limit, one dataset after the other, asked for as they are needed."""
        return (self._dataset(row) for row in self._http.rows("search/", q=list(terms)))

    def attach(self, node: Node) -> None:
        """As a guest: use this connection for what searches find on its node."""
        if self._account is not None:
            raise InvalidInputError("This network object is signed in: it uses its own account on every node.")
        self._attached[node.public_key] = node

    def nodes(self) -> Listing[Member]:
        """The nodes that belong to the network; for its operator also those that ask to."""
        return Member.listed(self._http.get("nodes/")["results"])

    def approve_node(self, id: str, reason: str = "") -> Member:
        """Let a node join."""
        return self._decide(id, "approve", reason)

    def reject_node(self, id: str, reason: str = "") -> Member:
        """Refuse a node that asks to join."""
        return self._decide(id, "reject", reason)

    def remove_node(self, id: str, reason: str = "") -> Member:
        """Take a node off the network. Its datasets are found no longer."""
        return self._decide(id, "remove", reason)

    def close(self) -> None:
        """End the sessions that came from searches, and the token that signing in made."""
        with self._lock:
            nodes, self._found = list(self._found.values()), {}
        for node in nodes:
            node.close()
        if self._account is not None and self._account.session:
            # It would expire by itself, and the network may be gone already.
            with contextlib.suppress(GridError):
                self._http.sign_out()
        self._http.close()

    def _decide(self, id: str, verb: str, reason: str) -> Member:
        return Member(self._http.once("POST", f"nodes/{quote(id, safe='')}/{verb}/", reason=reason))

    def _dataset(self, row: Mapping[str, Any]) -> Dataset:
        return Dataset(self._location(row["node"]), row["dataset"])

    def _location(self, entry: Mapping[str, str]) -> Node:
        """The node of a search result. Nothing is sent there before it is needed."""
        if self._account is None and (own := self._own(entry["public_key"])) is not None:
            return own
        key = (entry["id"], entry["public_key"], entry["url"])
        with self._lock:
            node = self._found.get(key)
            # A guest's choice of connection is made anew for each search, since connections come and go.
            if node is None or node.lost or (self._account is None and node.entered):
                named = dict(entry)
                node = self._found[key] = Node(
                    id=named["id"],
                    name=named["name"],
                    url=named["url"],
                    public_key=named["public_key"],
                    enter=lambda: self._enter(named),
                )
            return node

    def _own(self, public_key: str) -> Node | None:
        """As a guest: the attached connection to a node, else the only one there is."""
        attached = self._attached.get(public_key)
        if attached is not None:
            return attached
        own = connected_to(public_key)
        return own[0] if len(own) == 1 else None

    def _enter(self, entry: Mapping[str, str]) -> Account:
        if self._account is not None:
            return with_assertion(self._http, entry)
        own = self._own(entry["public_key"])
        if own is not None:
            # Its address is the one that the user typed, not the one that the search gave.
            return Account(Http(own.url, own.http.token), own.user, own.rights, False, own.scopes)
        several = len(connected_to(entry["public_key"])) > 1
        why = "You have several connections to it." if several else "You are a guest of this network."
        raise AuthenticationError(
            f"{why} To use what was found on {entry['id']}, call network.attach(node) with your grid.connect(...) "
            "connection to it, or sign in to the network."
        )


def connect_network(
    url: str, *, username: str | None = None, password: str | None = None, token: str | None = None
) -> GridNetwork:
    """Connect to a network: as a guest without credentials, else with a username and password or an access token.

    Raises ConnectionLostError (nobody there), VersionMismatchError, AuthenticationError.
    """
    address = checked_url(url)
    guest = Http(address)
    try:
        identity = identity_of(guest, role="network")
    except GridError:
        guest.close()
        raise
    if username is None and password is None and token is None:
        return GridNetwork(identity, guest, None)
    guest.close()
    check_credentials(username, password, token)
    account = sign_in(address, username, password) if username and password else with_token(address, token or "")
    return GridNetwork(identity, account.http, account)
