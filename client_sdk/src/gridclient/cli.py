"""`gridsite`: sign in, look around, and fetch answers from a terminal.

Exit status: 0, or 1 with one line on stderr, or 2 where the command was not used as it is meant.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gridclient import __version__, credentials, html
from gridclient.credentials import SignIn
from gridclient.datasets import Dataset
from gridclient.http import Http, checked_url
from gridclient.identity import sign_in
from gridclient.listings import Listing
from gridclient.network import GridNetwork, connect_network
from gridclient.node import Node, connect
from gridclient.requests import DataRequest
from gridclient.saving import SUFFIXES, check_target, save
from gridclient.wire.errors import AuthenticationError, GridError, InvalidInputError

T = TypeVar("T")
MOST_TAGS = 8
TERMS = {"term": lambda row: row[0], "datasets": lambda row: row[1]}
STATES = ("submitted", "approved", "denied", "withdrawn", "delivered")


class UsageError(Exception):
    """The command was not used as it is meant."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except UsageError as error:
        parser.error(str(error))
    except BrokenPipeError:
        # Whoever read our lines has enough of them; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (GridError, OSError) as error:
        print(f"gridsite: {html.plain(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gridsite", description="Find private data, and fetch answers about them.")
    parser.add_argument("--version", action="version", version=f"gridsite {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        made.set_defaults(run=run)
        return made

    def listing(name: str, run: Callable[[argparse.Namespace], None], help: str) -> argparse.ArgumentParser:
        made = command(name, run, help)
        made.add_argument("--json", action="store_true", help="print JSON")
        return made

    login = command("login", _login, "Sign in to a node or a network; the password is asked for, or read from stdin.")
    login.add_argument("url", metavar="URL")
    login.add_argument("--username", metavar="NAME")
    command("logout", _logout, "End a sign-in.").add_argument("url", metavar="URL")
    found = listing("search", _search, "List datasets that every term matches: a #tag, or a word.")
    found.add_argument("terms", metavar="TERM", nargs="+")
    found.add_argument("--limit", metavar="N", type=int, default=1000, help="the newest N (1000)")
    completed = listing("suggest", _suggest, "List tags (#feb) or words (feb) that begin so, most frequent first.")
    completed.add_argument("prefix", metavar="PREFIX")
    datasets = listing("datasets", _datasets, "List the datasets that you may see.")
    asked = listing("requests", _requests, "List requests on a node: yours, and those that you may look at.")
    asked.add_argument("--state", choices=STATES)
    fetched = command("get", _get, "Write the answer of a request into a file.")
    fetched.add_argument("request", metavar="REQUEST", help="its id, or the beginning of it")
    fetched.add_argument("--out", metavar="FILE", type=Path, required=True, help=f"one of {', '.join(SUFFIXES)}")
    fetched.add_argument("--force", action="store_true", help="overwrite FILE")
    for made in (found, completed, datasets, asked, fetched):
        made.add_argument("--at", metavar="URL", help="the node or network; else the one that you are signed in to")
    return parser


# --- sign-in ----------------------------------------------------------------------------------------------------


def _login(options: argparse.Namespace) -> None:
    url = checked_url(options.url)
    earlier = credentials.load().get(url)
    role, id, key = credentials.checked_key(url, earlier.public_key if earlier else None)
    if sys.stdin.isatty():
        username = options.username or input("Username: ").strip()
        password = getpass.getpass(f"Password of {username} at {url}: ")
    else:
        username, password = options.username, sys.stdin.readline().rstrip("\r\n")
    if not username:
        raise UsageError("--username is needed where the password comes from stdin")
    account = sign_in(url, username, password)
    credentials.keep(SignIn(url, role, id, account.username, key, account.http.token))
    account.http.close()
    if earlier is not None:
        _end(earlier)
    print(f"Signed in to the {role} {html.plain(id)} as {html.plain(account.username)}.")


def _logout(options: argparse.Namespace) -> None:
    url = checked_url(options.url)
    entry = credentials.load().get(url)
    if entry is None:
        raise InvalidInputError(f"You are not signed in at {url}.")
    credentials.forget(url)
    _end(entry)
    print(f"Signed out of the {entry.role} {html.plain(entry.id)}.")


def _end(entry: SignIn) -> None:
    """Revoke a token. It expires by itself where nobody is there, or where somebody else is."""
    with contextlib.suppress(GridError):
        credentials.checked_key(entry.url, entry.public_key)
        http = Http(entry.url, entry.token)
        try:
            http.sign_out()
        finally:
            http.close()


# --- where --------------------------------------------------------------------------------------------------------


def _place(options: argparse.Namespace, roles: Sequence[str]) -> Node | GridNetwork:
    """The node or network that is meant, signed in. `roles`: what it may be; the first of them is preferred."""
    kept = credentials.load()
    url = checked_url(options.at) if options.at else _only(kept, roles)
    entry = kept.get(url)
    role, _, _ = credentials.checked_key(url, entry.public_key if entry else None)
    if role not in roles:
        raise UsageError(f"{url} is a {role}; this command asks a {roles[0]}")
    token = entry.token if entry else os.environ.get("GRID_TOKEN")
    if role == "node" and not token:
        raise AuthenticationError(f"You are not signed in at {url}: gridsite login {url}")
    try:
        return connect(url, token=token) if role == "node" else connect_network(url, token=token)
    except AuthenticationError as error:
        # What the other end advises is about Python; here one command does it.
        raise AuthenticationError(
            f"{url} does not accept this token. Sign in again: gridsite login {url}", **error.details
        ) from None


def _only(kept: dict[str, SignIn], roles: Sequence[str]) -> str:
    for role in roles:
        urls = [url for url, entry in kept.items() if entry.role == role]
        if len(urls) > 1:
            raise UsageError(f"you are signed in at several; choose one with --at: {', '.join(urls)}")
        if urls:
            return urls[0]
    raise UsageError(f"you are signed in at no {' or '.join(roles)}: name one with --at, or gridsite login URL")


@contextlib.contextmanager
def _node(options: argparse.Namespace) -> Iterator[Node]:
    with _place(options, ["node"]) as node:
        assert isinstance(node, Node)
        yield node


# --- lists and answers ------------------------------------------------------------------------------------------


def _search(options: argparse.Namespace) -> None:
    with _place(options, ["network", "node"]) as place:
        found = place.datasets(*options.terms, limit=options.limit)
        _show(found, _public, options)
        if found.more and not options.json:
            facets = place.facets(*options.terms)
            tags = ", ".join(f"{html.plain(tag)} ({count})" for tag, count in list(facets.tags.items())[:MOST_TAGS])
            print(f"{len(found)} of {facets.total}. Their tags: {tags or 'none'}", file=sys.stderr)


def _suggest(options: argparse.Namespace) -> None:
    with _place(options, ["network", "node"]) as place:
        terms = Listing(place.suggest(options.prefix).items(), TERMS)
        _show(terms, lambda row: {"term": row[0], "datasets": row[1]}, options)


def _datasets(options: argparse.Namespace) -> None:
    with _place(options, ["node", "network"]) as place:
        _show(place.datasets(), _public, options)


def _requests(options: argparse.Namespace) -> None:
    with _node(options) as node:
        _show(node.requests(state=options.state), lambda request: request.fields, options)


def _get(options: argparse.Namespace) -> None:
    check_target(options.out, force=options.force)
    with _node(options) as node:
        save(_request(node, options.request).get(), options.out, force=options.force)
    print(f"Wrote {options.out}.")


def _request(node: Node, id: str) -> DataRequest:
    found = [request for request in node.requests() if id and request.id.startswith(id)]
    if len(found) != 1:
        problem = f"{len(found)} requests begin with {id!r}" if found else f"There is no request {id!r}"
        raise InvalidInputError(f"{problem} on {node.url}: gridsite requests --at {node.url}")
    return found[0]


def _public(dataset: Dataset) -> dict[str, Any]:
    known = dataset.metadata
    # As the table says it: the name is what a program calls it by, and what its owner typed is the title.
    return {"node": dataset.location.id, **known, "title": known["name"], "name": dataset.name}


def _show(found: Listing[T], fields: Callable[[T], dict[str, Any]], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps([fields(item) for item in found], indent=2))
    elif found:
        print(found.table())
    else:
        print("Nothing was found.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
