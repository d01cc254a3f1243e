"""Plans that are kept: how much an account may keep, and who removes what is in the way."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from apps.accounts import actions as accounts
from apps.accounts.models import Role
from apps.audit.models import AuditEvent
from apps.plans import actions
from apps.plans.models import Plan
from apps.plans.queries import plans_visible_to
from gridclient.program.plan_format import decode_plan
from gridclient.wire.errors import ConflictError, LimitExceededError, NotPermittedError
from tests.factories.people import People, make_user
from tests.factories.plans import double
from tests.factories.rest import Api, code

pytestmark = pytest.mark.django_db


def keep(by: Any, name: str = "double") -> Plan:
    data = double(name)
    return actions.send(actions.Arrived(data, decode_plan(data)), allow_download=False, by=by)


def test_one_account_cannot_fill_the_database_with_plans(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    first = keep(people.scientist, "plan-1")
    limit = 2 * first.nbytes
    monkeypatch.setattr(actions, "MAX_BYTES", limit)
    keep(people.scientist, "plan-2")
    with pytest.raises(LimitExceededError, match="Delete one") as refused:
        keep(people.scientist, "plan-3")
    assert refused.value.details == {"limit": limit}
    assert not Plan.objects.filter(name="plan-3").exists()
    keep(people.owner, "plan-3")
    keep(people.scientist, "plan-1")  # in place of itself it takes no more
    actions.delete(first, by=people.scientist)
    keep(people.scientist, "plan-4")


def test_a_plan_that_replaces_a_smaller_one_is_counted_whole(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(people.scientist)
    monkeypatch.setattr(actions, "MAX_BYTES", len(double("double")) - 1)
    with pytest.raises(LimitExceededError):
        keep(people.scientist)


def test_an_account_keeps_so_many_plans_and_is_told_what_to_do(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MAX_PLANS", 1)
    keep(people.scientist)
    with pytest.raises(LimitExceededError, match="Delete one"):
        keep(people.scientist, "another")


def test_the_name_of_a_closed_accounts_plan_is_free_again_once_an_administrator_deletes_it(people: People) -> None:
    plan = keep(people.scientist)
    accounts.deactivate(people.scientist, by=people.administrator)
    with pytest.raises(ConflictError):
        keep(people.owner)
    actions.delete(plan, by=people.administrator)
    event = AuditEvent.objects.order_by("seq").last()
    assert event is not None
    assert (event.verb, event.actor_name, event.target) == ("plan_deleted", "administrator", "plan:double")
    assert keep(people.owner).owner == people.owner


def test_who_deletes_a_plan(people: People) -> None:
    deleted = set()
    for name in vars(people):
        plan = keep(people.scientist)
        with suppress(NotPermittedError):
            actions.delete(plan, by=getattr(people, name))
            deleted.add(name)
    with pytest.raises(NotPermittedError, match="by who manages accounts"):
        actions.delete(keep(people.scientist), by=people.owner)
    assert deleted == {"scientist", "administrator"}


def test_who_manages_accounts_finds_every_plan_to_delete_it(people: People) -> None:
    Role.objects.create(name="registrar", title="Registrar", capabilities=["accounts.manage"])
    registrar = make_user("registrar", "registrar")
    keep(people.scientist)
    actions.delete(plans_visible_to(registrar).get(), by=registrar)
    assert not Plan.objects.exists()


def test_a_token_for_computing_deletes_only_ones_own_plans(people: People) -> None:
    api = Api(people.administrator)
    for scopes, answers in ((["compute"], (204, 403)), (["compute", "govern"], (204, 204))):
        _, api.text = accounts.create_token(
            user=people.administrator, name="limited", expires=None, scopes=scopes, by=people.administrator
        )
        for by, name, status in zip((people.administrator, people.scientist), ("own", "other"), answers, strict=True):
            keep(by, name)
            answer = api("DELETE", f"plans/{name}/")
            assert answer[0] == status, (scopes, name)
            if status == 403:
                assert code(answer) == (403, "not_permitted")
