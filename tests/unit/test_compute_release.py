"""The door itself: what it remembers of answers must be in the store."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.db import DatabaseError, connections, transaction

from apps.accounts.models import AccessToken
from apps.accounts.token_actions import create_token, revoke_token
from apps.audit.models import AuditEvent
from apps.audit.verbs import Verb
from apps.compute import release
from apps.compute.messages import Closed, Examine, Examined, Input, Proposal, Value
from apps.compute.models import StoredAnswer
from apps.compute.workers import Worker
from apps.permissions.actions import give, revoke
from gridclient.program.graph import Ref
from gridclient.wire.errors import AuthenticationError, GetNotPermittedError, GridError
from gridclient.wire.messages import TensorHeader
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_question_whose_commit_failed_is_answered_when_it_is_asked_again(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    births = publish(people.owner)
    give(births, to=people.scientist, right="aggregate", reason="Study 7", by=people.owner)
    create_token(user=people.scientist, name="laptop", expires=None, by=people.scientist)
    token = AccessToken.objects.get()
    caller = release.Caller(people.scientist.pk, token.pk, token.expires)
    key = str(births.pk)
    count = Closed("count", key, 1, [])
    proposal = Proposal(1, "ab" * 32, "agg", [Input(key, 1, [])], count, "tensor", "int64", [], 1, 8, 1)
    asked: list[Any] = []

    async def ask(question: Any) -> Value | Examined:
        asked.append(question)
        if isinstance(question, Examine):
            (tmp_path / "answer-crowds").write_bytes(b"who")
            return Examined(1, [], "ab" * 32)
        return Value(1, TensorHeader("int64", [], 8), (4).to_bytes(8, "little"), "tensor")

    worker = cast(Worker, SimpleNamespace(ask=ask))

    def once() -> release.Released:
        return asyncio.run(release.pointer(worker, Ref(1), proposal, caller=caller, path=tmp_path / "answer"))

    keep = release._keep

    def full(*_: Any) -> None:
        raise DatabaseError("The disk is full.")

    monkeypatch.setattr(release, "_known", set())
    monkeypatch.setattr(release, "_keep", full)
    with pytest.raises(DatabaseError):
        once()
    assert not StoredAnswer.objects.exists() and not AuditEvent.objects.filter(verb=Verb.VALUE_RELEASED).exists()
    monkeypatch.setattr(release, "_keep", keep)
    for _ in range(2):
        assert once().answer.data == (4).to_bytes(8, "little")
    # Computed again after the failure, and never once it was kept.
    assert len(asked) == 4 and StoredAnswer.objects.count() == 1
    assert AuditEvent.objects.filter(verb=Verb.VALUE_RELEASED).count() == 2


@pytest.mark.parametrize(("taken", "error"), [("token", AuthenticationError), ("grant", GetNotPermittedError)])
def test_nothing_leaves_on_a_right_that_is_being_taken_at_this_moment(
    people: People, tmp_path: Path, taken: str, error: type[GridError]
) -> None:
    """Who took it away and was told so may rely on it: the log has no release after the end of a right."""
    births = publish(people.owner)
    grant = give(births, to=people.scientist, right="read", reason="Study 7", by=people.owner)
    token, _ = create_token(user=people.scientist, name="laptop", expires=None, by=people.scientist)
    caller = release.Caller(people.scientist.pk, token.pk, token.expires)
    inputs = [Input(str(births.pk), 1, None)]
    proposal = Proposal(1, "ab" * 32, "rows", inputs, None, "tensor", "float64", [4, 2], 1, 64, 1)

    def permit() -> object:
        try:
            return release._permit(caller, proposal, None, tmp_path / "answer")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as elsewhere:
        with transaction.atomic():
            if taken == "token":
                revoke_token(token, by=people.scientist)
            else:
                revoke(grant, by=people.owner)
            asked = elsewhere.submit(permit)
            time.sleep(0.3)
            assert not asked.done()
        with pytest.raises(error):
            asked.result(20)
    assert not AuditEvent.objects.filter(verb=Verb.VALUE_RELEASED).exists()
