"""The one verb on what is alive: ending somebody's session."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction

from apps.accounts.models import User
from apps.audit.actions import record
from apps.audit.verbs import Verb
from apps.compute.models import MAX_REASON, LiveSession
from apps.compute.policies import check_can_stop
from apps.core import clock
from apps.core.wake import wake
from gridclient.wire.errors import ConflictError, InvalidInputError


@transaction.atomic
def stop_session(session: LiveSession, *, by: User, reason: str, now: datetime | None = None) -> LiveSession:
    """End a session: the process that has it says goodbye to its client, with the reason, and drops its values.

    At once in the process that this one can wake, else when that one looks next (ten seconds). Stopping it again
    changes nothing. Raises NotPermittedError; InvalidInputError for a reason that says nothing or does not show;
    ConflictError when the session has ended by itself.
    """
    check_can_stop(by, session)
    reason = " ".join(reason.split())
    if not 0 < len(reason) <= MAX_REASON or not reason.isprintable():
        raise InvalidInputError(
            f"Give a reason of 1 to {MAX_REASON} printable characters: whose session it is will read it.",
            field="reason",
        )
    row = LiveSession.objects.filter(pk=session.pk)
    if row.filter(stopped_at=None).update(stopped_at=now or clock.now(), stopped_by=by, stop_reason=reason):
        record(
            Verb.SESSION_STOPPED,
            by=by,
            target=session.user.username,
            session=str(session.pk),
            client=session.client,
            opened=session.opened.isoformat(),
            reason=reason,
        )
        wake("sessions")
    found = row.select_related("user", "process").first()
    if found is None:
        raise ConflictError("This session has ended already.")
    return found
