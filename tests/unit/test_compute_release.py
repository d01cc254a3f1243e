"""The door itself: what it remembers of answers must be in the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.db import DatabaseError

from apps.accounts.models import AccessToken
from apps.accounts.token_actions import create_token
from apps.audit.models import AuditEvent
from apps.audit.verbs import Verb
from apps.compute import release
from apps.compute.messages import Closed, Input, Proposal, Value
from apps.compute.models import StoredAnswer
from apps.compute.workers import Worker
from apps.permissions.actions import give
from gridclient.program.graph import Ref
from gridclient.wire.messages import TensorHeader
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_question_whose_commit_failed_is_answered_when_it_is_asked_again(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.GRID_K = 2
    births = publish(people.owner)
    give(births, to=people.scientist, right="aggregate", reason="Study 7", by=people.owner)
    create_token(user=people.scientist, name="laptop", expires=None, by=people.scientist)
    token = AccessToken.objects.get()
    caller = release.Caller(people.scientist.pk, token.pk, token.expires)
    key = str(births.pk)
    count = Closed("count", key, 1, [])
    proposal = Proposal(1, "ab" * 32, "agg", [Input(key, 1, [])], count, "tensor", "int64", [], 1, 8, 1)
    asked: list[Any] = []

    async def ask(question: Any) -> Value:
        asked.append(question)
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
    assert len(asked) == 2 and StoredAnswer.objects.count() == 1
    assert AuditEvent.objects.filter(verb=Verb.VALUE_RELEASED).count() == 2
