"""Budgets in the console: what people see of them, and what they can do; never an answer."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from apps.accounts import actions as accounts
from apps.audit.models import AuditEvent
from apps.budgets import outside
from apps.budgets.models import Domain, EpochProposal, Pot
from apps.datarequests.budgets import ask_for_budget
from apps.datarequests.models import BudgetRequest
from apps.datasets.models import Dataset
from apps.permissions.models import Grant
from tests.factories.budgets import answer as answer_it
from tests.factories.budgets import ask, queries_pot
from tests.factories.pages import page, said, signed_in, text
from tests.factories.people import People
from tests.factories.queue import publish

pytestmark = pytest.mark.django_db


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


@pytest.fixture
def at(people: People) -> Any:
    """`at("owner")`: the console, signed in as the owner."""
    return partial(signed_in, people)


def default() -> Domain:
    return Domain.objects.get(slug="default")


# --- requests for budgets -------------------------------------------------------------------------------------------


@pytest.fixture
def asked(people: People, births: Dataset) -> BudgetRequest:
    return ask_for_budget(births, epsilon=1.0, reason="Growth curves", by=people.scientist)


def test_an_owner_is_told_of_a_budget_request_and_gives_less(at: Any, people: People, asked: BudgetRequest) -> None:
    client = at("owner")
    home = text(client.get("/admin/"))
    assert "scientist asks for a budget of epsilon 1 on february-births" in home and page(asked) in home
    assert "budget of epsilon" not in text(at("reviewer").get("/admin/"))
    shown = text(client.get(f"{page(asked)}/change/"))
    for fact in ("Growth curves", "2 of 2", ">Approve<", ">Deny<", 'value="1"'):
        assert fact in shown
    answer = client.post(f"{page(asked)}/do/approve/", {"epsilon": "0.5", "reason": "Half will do."}, follow=True)
    assert "has an allowance of epsilon 0.5" in said(answer) and "Half will do." in text(answer)
    grant = Grant.objects.get()
    assert (grant.right, grant.allowance, grant.user) == ("release", 0.5, people.scientist)
    assert ">Approve<" not in text(answer) and "asks for a budget" not in text(client.get("/admin/"))


def test_more_than_was_asked_for_is_a_problem_on_the_page(at: Any, asked: BudgetRequest) -> None:
    for epsilon, problem in (("3", "that was asked for"), ("nan", ""), ("", "required")):
        answer = at("owner").post(f"{page(asked)}/do/approve/", {"epsilon": epsilon, "reason": "A long thought"})
        assert answer.status_code == 200 and problem in text(answer) and "A long thought" in text(answer)
    assert not Grant.objects.exists()


def test_an_owner_denies_a_budget_with_a_reason(at: Any, asked: BudgetRequest) -> None:
    assert "Write a reason." in text(at("owner").post(f"{page(asked)}/do/deny/", {"reason": " "}))
    assert "Denied" in said(at("owner").post(f"{page(asked)}/do/deny/", {"reason": "Say more."}, follow=True))
    assert BudgetRequest.objects.get().state == "denied"
    late = at("owner").post(f"{page(asked)}/do/approve/", {"epsilon": "1", "reason": "After all."}, follow=True)
    assert "This request is denied" in said(late) and not Grant.objects.exists()


def test_a_closed_account_can_only_be_denied(at: Any, people: People, asked: BudgetRequest) -> None:
    accounts.deactivate(people.scientist, by=people.administrator)
    shown = text(at("owner").get(f"{page(asked)}/change/"))
    assert ">Approve<" not in shown and ">Deny<" in shown


# --- domains --------------------------------------------------------------------------------------------------------


def test_the_page_of_a_domain_shows_what_is_spent_and_what_is_left(at: Any, people: People, births: Dataset) -> None:
    before = text(at("owner").get(f"{page(default())}/change/"))
    assert "2 left of epsilon 2" in before and "Nothing was spent yet." in before
    answer_it(ask(people.scientist, births, "k"))
    pot = queries_pot()
    shown = text(at("owner").get(f"{page(default())}/change/"))
    assert f'width="{100 * pot.spent / pot.cap:.2f}"' in shown and "2 left of epsilon 2" not in shown
    dataset = text(at("owner").get(f"{page(births)}/change/"))
    assert "of epsilon 2, all who ask together" in dataset and page(default()) in dataset


def test_a_pot_is_set_before_anything_is_spent_and_never_after(at: Any, people: People, births: Dataset) -> None:
    client, pot = at("owner"), queries_pot()
    answer = client.post(f"{page(default())}/do/setpot/", {"pot": pot.pk, "epsilon": "1", "year": "0.5"}, follow=True)
    assert "Questions: epsilon 1." in said(answer)
    assert "0.5 left of epsilon 1, 0.5 of it in later years" in text(answer)
    ask(people.scientist, births, "k", epsilon=0.1, allowed=0.5)
    late = client.post(f"{page(default())}/do/setpot/", {"pot": pot.pk, "epsilon": "100"})
    assert late.status_code == 200 and "Select a valid choice" in text(late)
    assert Pot.objects.get(pk=pot.pk).epsilon == 1.0


def test_a_new_epoch_takes_two_people(at: Any, people: People, births: Dataset) -> None:
    domain = default()
    answer_it(ask(people.scientist, births, "k"))
    outside.freeze("the ledger was set back")
    shown = text(at("owner").get(f"{page(domain)}/change/"))
    assert "Frozen: nothing is answered from it." in shown and "the ledger was set back" in shown
    client = at("owner")
    assert "Nothing is answered from the domain default" in text(client.get("/admin/"))
    answer = client.post(f"{page(domain)}/do/proposeepoch/", {"reason": "A restored backup."}, follow=True)
    assert "A restored backup." in text(answer) and ">Confirm the new epoch<" not in text(answer)
    own = client.post(f"{page(domain)}/do/confirmepoch/", follow=True)
    assert "no longer possible" in said(own) or own.status_code == 403
    assert EpochProposal.objects.get().confirmed_by is None and default().epoch == 1
    assert "owner proposes a new epoch" in text(at("reviewer").get("/admin/"))
    assert "proposes a new epoch" not in text(client.get("/admin/"))
    assert at("other_owner").post(f"{page(domain)}/do/confirmepoch/").status_code == 403
    done = at("reviewer").post(f"{page(domain)}/do/confirmepoch/", follow=True)
    assert "Epoch 2 of default is open." in said(done) and "confirmed by reviewer" in text(done)
    assert "2 left of epsilon 2" in text(done) and "Frozen" not in text(done)
    assert AuditEvent.objects.latest("seq").verb == "epoch_opened"


def test_an_owner_opens_a_domain_and_says_why(at: Any) -> None:
    words = {
        "name": "staff",
        "statement": "Nobody who works here was born here.",
        "entities": "500",
        "accounting": "uniform",
    }
    answer = at("owner").post("/admin/budgets/domain/add/", words, follow=True)
    assert "Done: staff." in said(answer) and words["statement"] in text(answer)
    again = at("owner").post("/admin/budgets/domain/add/", words)
    assert again.status_code == 200 and "There is a domain" in text(again)


# --- private answers ------------------------------------------------------------------------------------------------


def test_a_certificate_is_readable_and_holds_no_answer(at: Any, people: People, births: Dataset) -> None:
    release = answer_it(ask(people.scientist, births, "k"), b"4815162342")
    listed = text(at("owner").get("/admin/budgets/release/"))
    for fact in ("scientist", "february-births", "0.5", "answered", "(default)"):
        assert fact in listed
    shown = text(at("owner").get(f"{page(release)}/change/"))
    for fact in ("each entity", "of this answer by itself", "discrete Gaussian noise", release.hash, "epoch 1"):
        assert fact in shown
    assert f"{page(release)}/certificate/" in shown
    found = at("owner").get(f"{page(release)}/certificate/")
    kept = json.loads(found.content)
    assert (kept["id"], kept["position"], kept["hash"]) == (str(release.pk), 1, release.hash)
    for each in (listed, shown, text(found)):
        assert "4815162342" not in each


def test_the_auditor_reads_of_answers_and_other_owners_do_not(at: Any, people: People, births: Dataset) -> None:
    release = ask(people.scientist, births, "k")
    assert "scientist" in text(at("auditor").get("/admin/budgets/release/"))
    assert "february-births" not in text(at("other_owner").get("/admin/budgets/release/"))
    assert at("other_owner").get(f"{page(release)}/certificate/").status_code == 404
