"""The way out after an older database was put back: the loss is written down, then the log goes on.

A log that lost its tail looks the same whether a backup was restored or somebody cut it. So this proves little by
itself, and hides nothing: the event names the head that is gone, with its signature; the head outside the database then
lies on that event, so that the event cannot be cut off unseen; and `verify` tells of it for ever.
"""

from __future__ import annotations

from functools import partial

from django.db import transaction

from apps.audit import head as outside
from apps.audit.actions import Actor, record
from apps.audit.chain import DOMAIN
from apps.audit.models import AuditEvent
from apps.audit.queries import head_problem, verify
from apps.audit.verbs import Verb
from apps.core import keys
from gridclient.wire.errors import ConflictError, InvalidInputError


def accept(*, reason: str, by: Actor | None, operator: str = "") -> AuditEvent:
    """Accept that the log does not contain the head kept outside, and anchor that head to the event which says so.

    `operator` is the account of the machine at its console. Raises InvalidInputError without a reason, ConflictError
    where nothing was set back, where the outside head is not this deployment's own, or where the log is not whole.
    """
    if not reason.strip():
        raise InvalidInputError("Say why the log was set back.")
    kept, problem = outside.read(), head_problem()
    if kept is None or not problem:
        raise ConflictError("The log was not set back: there is nothing to accept.")
    if not keys.verify(keys.public_key(), DOMAIN, kept.hash.encode(), kept.signature):
        raise ConflictError("The head kept outside is not signed by this deployment's key: no log of its own was lost.")
    report = verify(outside_head=False)
    if not report:
        raise ConflictError(f"The log itself was changed, which no restored copy explains. {report.problem}.")
    with transaction.atomic():
        event = record(
            Verb.AUDIT_SET_BACK,
            by=by,
            target=f"head:{kept.seq}:{kept.hash}",
            reason=reason.strip()[:500],
            operator=operator,
            found=problem,
            lost=kept._asdict(),
        )
        transaction.on_commit(partial(outside.anchor, outside.Head(event.seq, event.hash, event.signature)))
    return event
