"""How rows look as JSON. No password, no digest of a token, nothing of another person's that the row does not need."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any
from uuid import UUID

from apps.accounts.models import AccessToken, Team, User
from apps.audit.models import AuditEvent
from apps.budgets.models import Domain, Pot
from apps.budgets.policies import can_open_epochs
from apps.compute.models import LiveSession
from apps.core.clock import now
from apps.datarequests.models import BudgetRequest, DataRequest
from apps.datarequests.queries import words_for
from apps.permissions.models import Grant


def user(row: User) -> dict[str, Any]:
    return {
        "id": row.pk,
        "username": row.username,
        "roles": sorted(role.name for role in row.roles.all()),
        "active": row.is_active,
        "federated": row.is_federated,
        "created": row.created,
    }


def me(row: User) -> dict[str, Any]:
    """The caller: with the rights that the roles give."""
    return {
        "id": row.pk,
        "username": row.username,
        "roles": sorted(role.name for role in row.roles.all()),
        "rights": sorted(row.capabilities),
    }


def team(row: Team) -> dict[str, Any]:
    return {"slug": row.slug, "name": row.name, "members": sorted(member.username for member in row.members.all())}


def token(row: AccessToken) -> dict[str, Any]:
    return {
        "prefix": row.prefix,
        "name": row.name,
        "kind": row.kind,
        "scopes": row.scopes,
        "user": row.user.username,
        "created": row.created,
        "expires": row.expires,
        "revoked": row.revoked_at,
        "last_used": row.last_used,
    }


def grant(row: Grant) -> dict[str, Any]:
    return {
        "id": row.pk,
        "dataset": row.dataset.slug,
        "to": row.user.username if row.user else f"team:{row.team.slug}" if row.team else "",
        "right": row.right,
        "columns": row.columns,
        "programs": row.programs,
        "epsilon": row.allowance,
        "expires": row.expires,
        "reason": row.reason,
        "given_by": row.given_by.username if row.given_by else "",
        "created": row.created,
        "revoked": row.revoked_at,
        "program_hash": row.program_hash,
        "request": row.request_id,
    }


def domains(rows: Sequence[Domain], to: User) -> list[dict[str, Any]]:
    """Privacy domains with their present pots for questions. What is left is for those who decide, and who may see
    everything: it tells how much others asked."""
    moment, sees_all = now(), to.has("everything.read")
    pots = Pot.objects.filter(domain__in=rows, kind=Pot.Kind.QUERIES, block="")
    found = {(pot.domain_id, pot.epoch): pot for pot in pots}
    shown = []
    for row in rows:
        pot = found[row.pk, row.epoch]
        shown.append(
            {
                "name": row.slug,
                "statement": row.statement,
                "entities": row.entities,
                "accounting": row.accounting,
                "epoch": row.epoch,
                "frozen": row.frozen,
                "epsilon": pot.epsilon,
                "delta": pot.delta,
                "left": pot.as_epsilon(pot.left(moment)) if sees_all or can_open_epochs(to, row) else None,
            }
        )
    return shown


def data_request(row: DataRequest, visible: Set[UUID]) -> dict[str, Any]:
    """`visible`: ids of the datasets that the reader may see (`datarequests.queries.visible_inputs`)."""
    return {
        "id": row.pk,
        "state": row.state,
        "requester": row.requester.username,
        "reason": row.reason,
        "program_hash": row.program_hash,
        "words": words_for(row, visible),
        "inputs": [
            {
                "dataset": entry.dataset.slug,
                "name": entry.dataset.name,
                "version": entry.version,
                "columns": entry.columns,
            }
            for entry in row.inputs.all()
            if entry.dataset_id in visible
        ],
        "kind": row.kind,
        "dtype": row.dtype,
        "shape": row.shape,
        "label": row.label,
        "names": row.names,
        "created": row.created,
        "updated": row.updated,
        "decided_by": row.decided_by.username if row.decided_by else None,
        "decided_at": row.decided_at,
        "decision_reason": row.decision_reason,
        "answered_at": row.answered_at,
        "delivered_at": row.delivered_at,
        "failure": row.failure,
    }


def budget_request(row: BudgetRequest) -> dict[str, Any]:
    """`given`: the epsilon of the grant that an approval gave."""
    return {
        "id": row.pk,
        "state": row.state,
        "dataset": row.dataset.slug,
        "requester": row.requester.username,
        "epsilon": row.epsilon,
        "reason": row.reason,
        "created": row.created,
        "decided_by": row.decided_by.username if row.decided_by else None,
        "decided_at": row.decided_at,
        "decision": row.decision,
        "grant": row.grant_id,
        "given": row.grant.allowance if row.grant else None,
    }


def session(row: LiveSession, *, loads: bool) -> dict[str, Any]:
    """`loads`: whether the reader looks after the node. To others, what a worker takes could tell of private values."""
    worker = row.worker if loads else None
    return {
        "id": row.pk,
        "user": row.user.username,
        "client": row.client,
        "opened": row.opened,
        "state": row.state,
        "waits_since": row.waits_since,
        "open_asks": row.asks,
        "last_error": row.last_error or None,
        "last_error_at": row.last_error_at,
        "worker": worker and {name: worker[name] for name in ("pid", "rss", "pss", "cpu", "isolated")},
    }


def event(row: AuditEvent) -> dict[str, Any]:
    return {
        "seq": row.seq,
        "at": row.at,
        "verb": row.verb,
        "actor_id": row.actor_id,
        "actor": row.actor_name,
        "target": row.target,
        "payload": row.payload,
        "payload_digest": row.payload_digest,
        "previous": row.previous,
        "hash": row.hash,
        "signature": row.signature,
    }
