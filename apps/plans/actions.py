"""Keep, hand out and delete plans."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec
from django.db import IntegrityError, transaction
from django.db.models import Sum

from apps.accounts.models import User
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.plans.models import Plan
from apps.plans.policies import check_can_delete, check_can_download, check_can_send
from gridclient.program.graph import Ref
from gridclient.program.plan_format import decode_plan, plan_digest
from gridclient.program.plan_graph import MAX_PLAN, PlanGraph
from gridclient.wire.errors import ConflictError, LimitExceededError

MAX_PLANS = 200
"""Plans of one account."""
MAX_BYTES = 64 * 2**20
"""Bytes of one account's plans together."""


class Arrived(NamedTuple):
    """A plan's bytes, and what they decode to."""

    data: bytes
    graph: PlanGraph


def read(path: Path) -> Arrived:
    """A plan that was uploaded. Takes up to half a second, and no database; raises what `decode_plan` raises."""
    with path.open("rb") as file:
        data = file.read(MAX_PLAN + 1)
    return Arrived(data, decode_plan(data))


def send(arrived: Arrived, *, allow_download: bool, by: User) -> Plan:
    """Keep a plan under the name in it. One of the same name that is the user's own is replaced.

    Raises NotPermittedError, ConflictError (somebody else's plan has the name), LimitExceededError.
    """
    check_can_send(by)
    data, graph = arrived
    row = {
        "description": graph.description,
        "data": data,
        "nbytes": len(data),
        "sha256": plan_digest(data),
        "signature": _signature(graph),
        "allow_download": allow_download,
    }
    try:
        with transaction.atomic():
            # Locked, so that two plans at once cannot both be the last that fits.
            User.objects.select_for_update(no_key=True).get(pk=by.pk)
            known = Plan.objects.select_for_update(no_key=True).defer("data").filter(name=graph.name).first()
            if known is not None and known.owner_id != by.pk:
                raise _taken(graph.name)
            _check_share(by, graph.name, len(data))
            plan = known or Plan(name=graph.name, owner=by)
            before = plan.sha256
            for field, value in row.items():
                setattr(plan, field, value)
            plan.save()
            verb = Verb.PLAN_REPLACED if known else Verb.PLAN_SENT
            record(verb, by=by, target=f"plan:{plan.name}", sha256=plan.sha256, before=before, download=allow_download)
            return plan
    except IntegrityError:  # sent by somebody else at the same moment
        raise _taken(graph.name) from None


def download(plan: Plan, *, by: User) -> bytes:
    """The plan's bytes. Raises NotPermittedError where they may not be copied."""
    check_can_download(by, plan)
    with transaction.atomic():
        if plan.owner_id != by.pk:
            record(Verb.PLAN_DOWNLOADED, by=by, target=f"plan:{plan.name}", sha256=plan.sha256)
        return bytes(plan.data)


def delete(plan: Plan, *, by: User) -> None:
    """Remove a plan. Sessions that have called it go on with it; requests hold what they run.

    Raises NotPermittedError unless it is the user's own, or the user manages accounts.
    """
    check_can_delete(by, plan)
    with transaction.atomic():
        plan.delete()  # before the log is locked, in the order of `send`: the two cannot deadlock
        record(Verb.PLAN_DELETED, by=by, target=f"plan:{plan.name}", sha256=plan.sha256)


def _check_share(owner: User, name: str, nbytes: int) -> None:
    """Raise LimitExceededError where this plan beside the owner's others is too much. The owner is locked."""
    others = Plan.objects.filter(owner=owner).exclude(name=name)
    advice = "Delete one first: node.plan(name, download=False).delete()."
    if others.count() >= MAX_PLANS:
        raise LimitExceededError(f"An account keeps at most {MAX_PLANS} plans on a node. {advice}", limit=MAX_PLANS)
    held = others.aggregate(total=Sum("nbytes"))["total"] or 0
    if held + nbytes > MAX_BYTES:
        raise LimitExceededError(
            f"Your other plans on this node hold {held} bytes, and {name} has {nbytes}; together they may hold"
            f" {MAX_BYTES}. {advice} A large model is better sent with grid.send(model, node), its tensors given as"
            " inputs of the plan.",
            limit=MAX_BYTES,
        )


def _taken(name: str) -> ConflictError:
    return ConflictError(f"Somebody else has a plan called {name} on this node; choose another name.")


def _signature(graph: PlanGraph) -> dict[str, object]:
    return {
        "inputs": [msgspec.structs.asdict(given) for given in graph.inputs],
        "results": [
            _place(ref, len(graph.inputs)) | {"dtype": spec.dtype, "shape": spec.shape, "stride": spec.stride}
            for ref, spec in zip(graph.results, graph.signature, strict=True)
        ],
        "size": graph.size,
        "draws": graph.draws,
        "operations": dict(sorted(Counter(node.op for node in graph.nodes).items())),
    }


def _place(ref: Ref, inputs: int) -> dict[str, object]:
    """The node of a call that gives a result, or the input that is handed through."""
    return {"input": ref.node} if ref.node < inputs else {"node": ref.node - inputs, "output": ref.output}
