"""What people do in the console: each button is a verb, its problems are shown, and nothing typed is lost."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from django.test import Client, override_settings

from apps.accounts import actions as accounts
from apps.accounts.models import AccessToken, Team, User
from apps.accounts.queries import user_of_token
from apps.audit.models import AuditEvent
from apps.core import clock, keys
from apps.datarequests import actions as queue
from apps.datarequests.models import DataRequest
from apps.network import actions as network
from apps.network.models import Membership, Node
from apps.permissions import actions as permissions
from apps.permissions.models import Grant
from apps.plans import actions as plans
from apps.plans.models import Plan
from gridclient.program.plan_format import decode_plan
from gridclient.wire.errors import AuthenticationError
from tests.factories.network import NOW, acting_as, join_of, member
from tests.factories.pages import page, said, signed_in, text
from tests.factories.people import PASSWORD, People
from tests.factories.plans import double
from tests.factories.queue import publish, submit

pytestmark = pytest.mark.django_db

GOOD = "nine lives of a cat"


@pytest.fixture
def at(people: People) -> Any:
    """`at("owner")`: the console, signed in as the owner."""
    return partial(signed_in, people)


def last_verb() -> str:
    return AuditEvent.objects.latest("seq").verb


# --- plans ----------------------------------------------------------------------------------------------------------


def test_an_administrator_deletes_the_plan_of_a_closed_account(at: Any, people: People) -> None:
    data = double("double")
    plan = plans.send(plans.Arrived(data, decode_plan(data)), allow_download=False, by=people.scientist)
    accounts.deactivate(people.scientist, by=people.administrator)
    for who, offered in (("administrator", True), ("owner", False), ("auditor", False)):
        assert (">Delete<" in text(at(who).get(f"{page(plan)}/change/"))) is offered
    answer = at("administrator").post(f"{page(plan)}/do/delete/", follow=True)
    assert "double is deleted" in said(answer) and answer.redirect_chain == [("/admin/plans/plan/", 302)]
    assert last_verb() == "plan_deleted" and not Plan.objects.exists()


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.fixture
def request_(people: People) -> DataRequest:
    return submit(people.scientist, publish(people.owner), reason="For the\nyearly report")


def decide(client: Client, item: DataRequest, act: str, reason: str = "It is fine.", seen: str = "") -> Any:
    seen = seen or item.updated.isoformat()
    return client.post(f"{page(item)}/do/{act}/", {"reason": reason, "seen": seen}, follow=True)


def test_the_page_of_a_request_tells_what_one_decides_on(at: Any, request_: DataRequest) -> None:
    shown = text(at("owner").get(f"{page(request_)}/change/"))
    for fact in ("scientist", "For the<br>yearly report", "February births", "the sum of February births", "one number",
                 "waiting for a decision", ">Approve<", ">Deny<"):  # fmt: skip
        assert fact in shown
    title = re.search("<title>(.*?)</title>", shown, re.DOTALL)
    assert title and title[1].split() == "one number (float64) for scientist | ward · Gridsite".split()


@pytest.mark.parametrize("who", ["owner", "reviewer"])
@pytest.mark.parametrize(("act", "state"), [("approve", "approved"), ("deny", "denied")])
def test_who_decides_does_so_with_a_reason(at: Any, request_: DataRequest, who: str, act: str, state: str) -> None:
    answer = decide(at(who), request_, act)
    request_.refresh_from_db()
    assert (request_.state, request_.decision_reason, str(request_.decided_by)) == (state, "It is fine.", who)
    assert said(answer).startswith(("Approved.", "Denied.")) and "It is fine." in text(answer)


def test_a_decision_without_a_reason_is_shown_as_a_problem(at: Any, request_: DataRequest) -> None:
    answer = decide(at("owner"), request_, "approve", reason="  ")
    assert answer.status_code == 200 and "Write a reason." in text(answer)
    assert DataRequest.objects.get().state == "submitted"


def test_what_was_typed_stays_when_something_else_is_wrong(at: Any, request_: DataRequest) -> None:
    for seen, reason in (("no date", "A long thought"), ("", "A long thought\u202e")):
        answer = decide(at("owner"), request_, "deny", reason=reason, seen=seen)
        assert answer.status_code == 200 and "A long thought" in text(answer)
        assert f'name="seen" value="{request_.updated.isoformat()}"' in text(answer)


def test_the_same_button_twice_is_harmless(at: Any, request_: DataRequest) -> None:
    client = at("owner")
    decide(client, request_, "approve")
    events = AuditEvent.objects.count()
    answer = decide(client, request_, "approve")
    assert answer.status_code == 200 and "This request is approved" in said(answer)
    assert AuditEvent.objects.count() == events and Grant.objects.count() == 1


def test_a_stale_page_says_what_became_of_the_request(at: Any, people: People, request_: DataRequest) -> None:
    queue.withdraw(request_, by=people.scientist)
    answer = decide(at("owner"), request_, "approve")
    assert "This request is withdrawn" in said(answer) and "withdrawn by the requester" in text(answer)


def test_nobody_decides_on_a_request_of_their_own(at: Any, people: People) -> None:
    own = submit(people.reviewer, publish(people.owner))
    client = at("reviewer")
    assert ">Approve<" not in text(client.get(f"{page(own)}/change/"))
    assert decide(client, own, "approve").status_code == 403
    assert "Withdrawn." in said(client.post(f"{page(own)}/do/withdraw/", follow=True))


def test_the_page_of_a_request_that_will_not_run_again_says_that_its_program_is_gone(
    at: Any, people: People, request_: DataRequest
) -> None:
    assert "no longer kept" not in text(at("owner").get(f"{page(request_)}/change/"))
    queue.withdraw(request_, by=people.scientist)
    shown = text(at("owner").get(f"{page(request_)}/change/"))
    assert "no longer kept" in shown and "the sum of February births" in shown and request_.program_hash[:16] in shown


def test_one_is_led_from_request_to_request(at: Any, people: People, request_: DataRequest) -> None:
    second = submit(people.scientist, publish(people.owner, "Second"))
    client = at("owner")
    assert f'href="{page(second)}/change/"' in text(client.get(f"{page(request_)}/change/"))
    decide(client, second, "deny")
    decided = text(client.get(f"{page(second)}/change/"))
    assert f'href="{page(request_)}/change/" data-testid="next"' in decided and ">Deny<" not in decided


def test_the_list_can_be_asked_for_what_needs_me(at: Any, people: People, request_: DataRequest) -> None:
    queue.deny(submit(people.scientist, publish(people.owner, "Second")), reason="No.", by=people.owner)
    client = at("owner")
    assert text(client.get("/admin/datarequests/datarequest/?turn=me")).count("data-row") == 1
    assert text(client.get("/admin/datarequests/datarequest/")).count("data-row") == 2
    assert text(client.get("/admin/datarequests/datarequest/?of=second")).count("data-row") == 1
    assert text(at("auditor").get("/admin/datarequests/datarequest/?turn=me")).count("data-row") == 0


@pytest.mark.django_db(transaction=True)  # the audit log is whole once it was committed
def test_home_shows_each_what_needs_them(at: Any, request_: DataRequest) -> None:
    for who in ("owner", "reviewer"):
        assert "scientist asks for one number" in text(at(who).get("/admin/"))
    for who in ("other_owner", "auditor", "administrator"):
        assert "Nothing waits for you." in text(at(who).get("/admin/"))


# --- accounts ---------------------------------------------------------------------------------------------------------


def test_an_administrator_makes_an_account(at: Any) -> None:
    form = {"username": "Nora", "password": GOOD, "roles": ["owner", "reviewer"]}
    answer = at("administrator").post("/admin/accounts/user/add/", form, follow=True)
    made = User.objects.get(username="nora")
    assert answer.redirect_chain[-1][0] == f"{page(made)}/change/"
    assert {role.pk for role in made.roles.all()} == {"owner", "reviewer"}
    assert last_verb() == "user_created"


def test_every_problem_of_a_new_account_is_shown_at_once(at: Any) -> None:
    answer = at("administrator").post("/admin/accounts/user/add/", {"username": "a b", "password": "12345678"})
    assert answer.status_code == 200 and "too common" in text(answer) and 'value="a b"' in text(answer)
    assert "12345678" not in text(answer)


def test_an_account_is_closed_and_opened_again(at: Any, people: People) -> None:
    client, scientist = at("administrator"), people.scientist
    assert "reopen" not in text(client.get(f"{page(scientist)}/change/"))
    client.post(f"{page(scientist)}/do/close/")
    assert not User.objects.get(pk=scientist.pk).is_active
    shown = text(client.get(f"{page(scientist)}/change/"))
    assert "do/close" not in shown and "do/setpassword" not in shown
    assert "not active any more" in said(client.post(f"{page(scientist)}/do/close/", follow=True))
    client.post(f"{page(scientist)}/do/reopen/")
    assert User.objects.get(pk=scientist.pk).is_active


def test_the_last_administrator_stays(at: Any, people: People) -> None:
    answer = at("administrator").post(f"{page(people.administrator)}/do/close/", follow=True)
    assert "last active administrator" in text(answer)
    assert User.objects.get(pk=people.administrator.pk).is_active


def test_roles_are_changed_and_hold_at_once(at: Any, people: People) -> None:
    answer = at("administrator").post(f"{page(people.scientist)}/do/changeroles/", {"roles": ["owner"]}, follow=True)
    assert "The roles of scientist are changed." in said(answer)
    assert User.objects.get(pk=people.scientist.pk).has("datasets.publish")


def test_an_administrator_sets_a_password_for_somebody(at: Any, people: People) -> None:
    client = at("administrator")
    where = f"{page(people.scientist)}/do/setpassword/"
    assert "not the same" in text(client.post(where, {"password": GOOD, "again": "else"}))
    client.post(where, {"password": GOOD, "again": GOOD})
    assert accounts.sign_in(username="scientist", password=GOOD, address="") == people.scientist
    assert AuditEvent.objects.filter(verb="password_changed", actor_name="administrator").exists()


def test_ones_own_password_is_changed_by_who_knows_the_old_one(at: Any, people: People) -> None:
    client = at("owner")
    wrong = client.post("/admin/password_change/", {"old": "guess", "password": GOOD, "again": GOOD})
    assert wrong.status_code == 200 and "not your present password" in text(wrong)
    client.post("/admin/password_change/", {"old": PASSWORD, "password": GOOD, "again": GOOD})
    assert last_verb() == "password_changed"
    assert client.get("/admin/").status_code == 200
    with pytest.raises(AuthenticationError):
        accounts.sign_in(username="owner", password=PASSWORD, address="")


def test_teams_are_made_and_changed_by_names(at: Any, people: People) -> None:
    client = at("administrator")
    form = {"slug_field": "cardio", "name": "Cardiology", "members": "scientist\nnobody\nnoone"}
    answer = client.post("/admin/accounts/team/add/", form)
    assert "nobody, noone" in text(answer) and not Team.objects.exists()
    client.post("/admin/accounts/team/add/", {**form, "members": "scientist\nreviewer"})
    team = Team.objects.get()
    accounts.deactivate(people.reviewer, by=None)
    client.post(f"{page(team)}/do/changemembers/", {"members": "Reviewer owner"})
    assert {user.username for user in team.members.all()} == {"reviewer", "owner"}
    assert last_verb() == "team_changed"


def test_a_token_is_shown_once_and_can_be_revoked(at: Any, people: People) -> None:
    client = at("owner")
    answer = client.post("/admin/accounts/accesstoken/add/", {"name": "laptop"})
    found = re.search(r"grd_\w{8}_[\w-]{43}", text(answer))
    assert found and user_of_token(found[0])[0] == people.owner
    token = AccessToken.objects.get()
    assert found[0] not in text(client.get(f"{page(token)}/change/"))
    client.post(f"{page(token)}/do/revoke/")
    with pytest.raises(AuthenticationError):
        user_of_token(found[0])
    assert "do/revoke" not in text(client.get(f"{page(token)}/change/"))


# --- data -------------------------------------------------------------------------------------------------------------


def test_an_owner_gives_a_right_and_takes_it_back(at: Any, people: People) -> None:
    dataset = publish(people.owner)
    client = at("owner")
    form = {"dataset": dataset.pk, "to": "nobody", "right": "aggregate", "columns": "weight_kg", "reason": "A study."}
    wrong = client.post("/admin/permissions/grant/add/", form)
    assert "nobody" in text(wrong) and "A study." in text(wrong) and not Grant.objects.exists()
    client.post("/admin/permissions/grant/add/", {**form, "to": "scientist"})
    grant = Grant.objects.get()
    assert (grant.user, grant.columns) == (people.scientist, ["weight_kg"])
    client.post(f"{page(grant)}/do/revoke/")
    grant.refresh_from_db()
    assert grant.revoked_at is not None and "do/revoke" not in text(client.get(f"{page(grant)}/change/"))


def test_who_gives_train_is_told_that_it_hides_nobody(at: Any, people: People) -> None:
    dataset, client = publish(people.owner), at("owner")
    shown = text(client.get("/admin/permissions/grant/add/"))
    assert "for a determined analyst as much as read" in shown and "Nothing in train hides single people" in shown
    form = {"dataset": dataset.pk, "to": "scientist", "right": "train", "reason": "A study.", "columns": ""}
    client.post("/admin/permissions/grant/add/", {**form, "programs": f"{'ab' * 32}, {'cd' * 32}"})
    grant = Grant.objects.get()
    assert (grant.right, grant.programs) == ("train", ["ab" * 32, "cd" * 32])
    shown = text(client.get(f"{page(grant)}/change/"))
    assert "ab" * 32 in shown and "for a determined analyst as much as read" in shown


def test_who_decides_on_a_model_sees_how_much_of_it_there_is(at: Any, people: People) -> None:
    dataset = publish(people.owner)
    model: dict[str, Any] = {"kind": "state", "dtype": "", "shape": [2, 4], "module": "ab", "names": ["w", "b"]}
    asked = submit(people.scientist, dataset, **model)
    for shown in (at("owner").get(f"{page(asked)}/change/"), at("owner").get("/admin/datarequests/datarequest/")):
        assert "a model of 2 tensors with 4 numbers" in text(shown)


def test_an_owner_gives_rights_on_nothing_that_is_not_theirs(at: Any, people: People) -> None:
    foreign = publish(people.owner)
    publish(people.other_owner, "My own")
    form = {"dataset": foreign.pk, "to": "other_owner", "right": "read", "reason": "Mine now."}
    assert at("other_owner").post("/admin/permissions/grant/add/", form).status_code == 200
    assert not Grant.objects.exists()


def test_an_owner_changes_the_words_of_a_dataset(at: Any, people: People) -> None:
    dataset = publish(people.owner)
    words = {"name": "Births", "description": "All of them.", "tags": "#births, #hospital", "visibility": "granted"}
    words["accounts_may_compute"] = "no"
    client = at("owner")
    client.post(f"{page(dataset)}/do/describe/", words)
    dataset.refresh_from_db()
    assert (dataset.name, dataset.visibility, len(dataset.typed_tags)) == ("Births", "granted", 2)
    assert not dataset.accounts_may_compute
    assert last_verb() == "dataset_changed"
    answer = client.post(f"{page(dataset)}/do/describe/", {**words, "tags": "#a b c!"})
    assert answer.status_code == 200 and "#a b c!" in text(answer)


def test_a_grantee_who_is_no_owner_revokes_nothing(at: Any, people: People) -> None:
    dataset = publish(people.owner)
    grant = permissions.give(dataset, to=people.other_owner, right="read", reason="Peer.", by=people.owner)
    assert at("other_owner").post(f"{page(grant)}/do/revoke/").status_code == 403
    grant.refresh_from_db()
    assert grant.revoked_at is None


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_operator_rejects_a_node_and_removes_a_member(at: Any, people: People) -> None:
    client = at("administrator")
    wanted = join_of("clinic")
    asking = network.join(wanted, key=wanted.public_key, address="198.51.100.7", now=NOW)
    joined = member("ward", people.administrator)
    with override_settings(GRID_ROLE="network"):
        shown = text(client.get(f"{page(asking)}/change/"))
        assert "do/approve" in shown and "do/reject" in shown and "do/remove" not in shown
        assert "clinic".title() + " wants to join" in text(client.get("/admin/"))
        assert "Write a reason." in text(client.post(f"{page(asking)}/do/reject/", {"reason": ""}))
        client.post(f"{page(asking)}/do/reject/", {"reason": "Unknown to us."})
        client.post(f"{page(joined)}/do/remove/", {"reason": "Left."})
        assert "do/remove" not in text(client.get(f"{page(joined)}/change/"))
    assert {node.pk: node.state for node in Node.objects.all()} == {"clinic": "rejected", "ward": "removed"}


def test_an_administrator_decides_on_a_network_that_shows_another_key(at: Any) -> None:
    with acting_as("net") as old:
        pass
    with acting_as("other") as new:
        pass
    Membership.objects.create(
        url="https://net.example", public_key=old, fingerprint=keys.fingerprint(old), pinned=clock.now(), frozen=True,
        offered_key=new,
    )  # fmt: skip
    client = at("administrator")
    assert "shows another key" in text(client.get("/admin/"))
    shown = text(client.get("/admin/network/membership/1/change/"))
    assert keys.fingerprint(old) in shown and keys.fingerprint(new) in shown
    where = "/admin/network/membership/1/do/pin/"
    assert client.post(where, {"key": "f" * 64, "reason": "Guess"}).status_code == 200
    client.post(where, {"key": new, "reason": "Their operator told me on the phone."})
    pinned = Membership.objects.get()
    assert (pinned.public_key, pinned.frozen) == (new, False)
    assert "do/pin" not in text(client.get("/admin/network/membership/1/change/"))


# --- the frame --------------------------------------------------------------------------------------------------------


def test_pages_are_titled_by_what_they_show(at: Any) -> None:
    client = at("administrator")
    for where, title in (("", "Home"), ("accounts/user/", "Accounts"), ("accounts/user/add/", "New account")):
        shown = re.sub(r"\s+", " ", text(client.get(f"/admin/{where}")))
        assert re.search(f"<title> ?{title} \\| ward · Gridsite ?</title>", shown), where


def test_an_empty_list_says_what_to_do_next(at: Any) -> None:
    client = at("owner")
    assert "grid.private_tensor(...).send(node)" in text(client.get("/admin/datasets/dataset/"))
    assert "Clear the filters" in text(client.get("/admin/datasets/dataset/?q=nothing"))


def test_no_page_needs_a_script_that_the_policy_forbids(at: Any) -> None:
    client = at("administrator")
    for where in ("", "accounts/user/", "accounts/user/add/", "audit/auditevent/1/change/"):
        shown = text(client.get(f"/admin/{where}"))
        assert not re.search(r"<script(?![^>]*\bsrc=)", shown), where
        assert not re.search(r"\son\w+=", shown), where
