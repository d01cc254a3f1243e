"""Between deployments, and for the network's operator: identities, joining, announcements, search, one sign-in."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import msgspec
from django.conf import settings
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.actions import create_token
from apps.accounts.models import User
from apps.accounts.scopes import Scope
from apps.api import inputs, outputs
from apps.api.paging import each, page
from apps.api.signing import SESSION
from apps.api.views import View, caller, find, token_of
from apps.core.clock import now
from apps.network import actions, announcements, assertions, membership, messages, queries, signing
from apps.network.identity import own_identity
from apps.network.models import Membership, Node, State
from apps.network.once import check_rate
from apps.network.policies import check_can_operate, check_role, sees_all
from gridclient.wire.errors import LimitExceededError, NotFoundError, NotPermittedError

T = TypeVar("T")
SIGNED_PER_MINUTE = 6_000
"""Signed requests of one address: 60 nodes behind it, with a heartbeat every 10 s, and room for changes."""
PUSHES_PER_MINUTE = 1_200
"""Messages of one member: a member that keeps the index busy keeps it from the others."""
SIGN_INS_PER_MINUTE = 120


class Reason(inputs.Body, frozen=True):
    reason: str = ""


class Pin(inputs.Body, frozen=True):
    public_key: str
    reason: str = ""


class AskAssertion(inputs.Body, frozen=True):
    """`node`: its id. `session_key`: the caller's Ed25519 public key of this session, hex."""

    node: str
    session_key: str


class PresentAssertion(inputs.Body, frozen=True):
    assertion: dict[str, Any]
    signature: str
    challenge: str
    proof: str


class Open(View):
    """Base of routes that strangers may call."""

    authentication_classes = ()
    permission_classes = (AllowAny,)


def _address(request: Request) -> str:
    return str(request.META.get("REMOTE_ADDR", ""))[:64]


def _signed(request: Request, kind: type[T]) -> tuple[T, str]:
    """The body of a signed request, and the key that signed it."""
    check_rate("signed", _address(request), per_minute=SIGNED_PER_MINUTE, now=now())
    raw: HttpRequest = request._request
    # Read with a cap of its own: a chunked body has no length to refuse it by.
    body = raw.read(messages.MAX_BODY + 1)
    if len(body) > messages.MAX_BODY:
        raise LimitExceededError(f"The body is longer than {messages.MAX_BODY} bytes.", limit=messages.MAX_BODY)
    key = signing.signer(request.method or "", raw.path_info, body, request.headers, now=now())
    return messages.decode(body, kind), key


class Identity(Open):
    """GET ?challenge=<hex> -> {role, name, id, protocol, operations, public_key, signature}"""

    def get(self, request: Request) -> Response:
        return Response(msgspec.to_builtins(own_identity(request.query_params.get("challenge", ""))))


class Nodes(View):
    """GET: the members (for the operator also the others). POST, signed by the node's key: a node asks to join."""

    def get_authenticators(self) -> list[BaseAuthentication]:
        return [] if self.request.method == "POST" else super().get_authenticators()

    def get_permissions(self) -> list[Any]:
        return [AllowAny()] if self.request.method == "POST" else list(super().get_permissions())

    def get(self, request: Request) -> Response:
        check_role("network")
        user = caller(request)
        return page(request, queries.nodes_visible_to(user), each(partial(_node, reader=user)), by="asked")

    def post(self, request: Request) -> Response:
        check_role("network")
        wanted, key = _signed(request, messages.Join)
        node = actions.join(wanted, key=key, address=_address(request), now=now())
        return Response(msgspec.to_builtins(messages.Joined(id=node.id, state=State(node.state), reason=node.reason)))


class Decide(View):
    """POST nodes/<id>/<approve|reject|remove>/ {reason}: the operator's decision. Approving calls the node."""

    verbs = {"approve": actions.approve, "reject": actions.reject, "remove": actions.remove}

    def post(self, request: Request, id: str, verb: str) -> Response:
        check_role("network")
        by = caller(request)
        check_can_operate(by)
        body = inputs.read(request, Reason)
        node = self.verbs[verb](find(queries.nodes_visible_to(by), pk=id), by=by, reason=body.reason)
        return Response(_node(node, reader=by))


class Announcements(Open):
    """POST, signed by a member's key: changes of its listed datasets, or only a heartbeat."""

    def post(self, request: Request) -> Response:
        check_role("network")
        push, key = _signed(request, messages.Push)
        check_rate("push", key, per_minute=PUSHES_PER_MINUTE, now=now())
        return Response(msgspec.to_builtins(announcements.receive(push, key=key, now=now())))


class Assertions(View):
    """POST {node, session_key} -> {assertion, signature}: our word to a node for who the caller is."""

    scope = Scope.COMPUTE

    def post(self, request: Request) -> Response:
        check_role("network")
        if token_of(request).scopes is not None:
            # A node would let the bearer do all that the account may.
            raise NotPermittedError("A token that was made for some things only gets no sign-in at a node.")
        body, user = inputs.read(request, AskAssertion), caller(request)
        node = find(Node.objects.filter(state=State.APPROVED), pk=body.node)
        assertion, signature = assertions.issue(
            user, node=node, network=settings.GRID_NAME, session_key=body.session_key, now=now()
        )
        return Response({"assertion": assertion, "signature": signature})


class Challenge(Open):
    """POST -> {challenge}: hex; good for one sign-in within a minute."""

    def post(self, request: Request) -> Response:
        check_role("node")
        check_rate("challenge", _address(request), per_minute=SIGN_INS_PER_MINUTE, now=now())
        return Response({"challenge": assertions.new_challenge(now=now())})


class SignInByAssertion(Open):
    """POST {assertion, signature, challenge, proof} -> {token, expires, user}"""

    def post(self, request: Request) -> Response:
        check_role("node")
        check_rate("assertion", _address(request), per_minute=SIGN_INS_PER_MINUTE, now=now())
        body, moment = inputs.read(request, PresentAssertion), now()
        user = assertions.accept(body.assertion, body.signature, body.challenge, body.proof, now=moment)
        token, text = create_token(user=user, name="sign-in", expires=moment + SESSION, by=user, kind="session")
        return Response({"token": text, "expires": token.expires, "user": outputs.me(user)})


class OwnMembership(View):
    """GET: the network that this node belongs to. POST {public_key, reason}: which key is its, after it changed."""

    keyed = True

    def get(self, request: Request) -> Response:
        check_role("node")
        check_can_operate(caller(request))
        found = membership.current()
        if found is None:
            raise NotFoundError("This node belongs to no network.")
        return Response(_membership(found))

    def post(self, request: Request) -> Response:
        check_role("node")
        body, by = inputs.read(request, Pin), caller(request)
        return Response(_membership(membership.pin(body.public_key, by=by, reason=body.reason)))


def _node(node: Node, *, reader: User) -> dict[str, Any]:
    shown = {"id": node.id, "name": node.name, "url": node.url, "state": node.state, "last_seen": node.last_seen}
    if sees_all(reader):
        shown |= {
            "public_key": node.public_key,
            "fingerprint": node.fingerprint,
            "asked": node.asked,
            "asked_from": node.address,
            "joined": node.joined,
            "decided_by": node.decided_by.username if node.decided_by else None,
            "decided_at": node.decided_at,
            "reason": node.reason,
        }
    return shown


def _membership(found: Membership) -> dict[str, Any]:
    return {
        "url": found.url,
        "public_key": found.public_key,
        "fingerprint": found.fingerprint,
        "pinned": found.pinned,
        "id": found.node_id,
        "state": found.state,
        "problem": found.problem,
        "frozen": found.frozen,
        "offered_key": found.offered_key,
    }
