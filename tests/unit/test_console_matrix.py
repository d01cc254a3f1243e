"""Every page of the console for everybody: a page that is new fails here until somebody says who may open it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client, override_settings
from django.urls import URLPattern, URLResolver

from apps.accounts import actions as accounts
from apps.accounts.models import AccessToken, Team, User
from apps.audit.models import AuditEvent
from apps.budgets.models import Domain, EpochProposal, Pot, Release
from apps.compute.models import Disclosure, LiveSession, StoredAnswer
from apps.core import clock, keys
from apps.datarequests.budgets import ask_for_budget
from apps.datarequests.models import BudgetRequest, DataRequest
from apps.datasets.models import Dataset, Visibility
from apps.network.models import Announcement, Membership, Node, State
from apps.permissions import actions as permissions
from apps.permissions.models import Grant
from apps.plans import actions as plans
from apps.plans.models import Plan
from apps.tags.models import Tag
from gridclient.program.plan_format import decode_plan
from gridsite.reference.plans import vectors
from tests.factories.budgets import answer as answer_it
from tests.factories.budgets import ask
from tests.factories.console import ACTS, MATRIX, ON_A_NETWORK, WHO
from tests.factories.live import open_session
from tests.factories.network import member, metadata
from tests.factories.people import People
from tests.factories.queue import publish, submit

pytestmark = pytest.mark.django_db

ABSENT = "00000000-0000-4000-8000-000000000000"
SECRET = "4815162342"


@pytest.fixture
def house(people: People) -> dict[str, str]:
    """One of everything: whose page is asked for, by the beginning of its name. All data is the owner's alone."""
    dataset = publish(people.owner, "Staff list", visibility="granted")
    permissions.describe(dataset, tags=["#Layoffs"], by=people.owner)
    permissions.give(dataset, to=people.scientist, right="compute", reason="A study.", by=people.owner)
    grant = Grant.objects.get()
    request = submit(people.scientist, dataset)
    answer = StoredAnswer.objects.create(
        key="k", dataset=dataset, version=1, question="mean of weight_kg", dtype="float64", shape=[],
        data=SECRET.encode(),
    )  # fmt: skip
    disclosure = Disclosure.objects.create(
        key="k", dataset=dataset.pk, dataset_slug=dataset.slug, version=1, user=people.scientist, route="aggregate",
        question="mean of weight_kg", columns=["weight_kg"], program_hash="ab" * 32, crowds="cd" * 32,
    )  # fmt: skip
    team = accounts.create_team(slug="cardio", name="Cardiology", members=[people.scientist], by=None)
    token, _ = accounts.create_token(user=people.scientist, name="laptop", expires=None, by=people.scientist)
    data = bytes.fromhex(vectors()["plans"][1]["hex"])
    plan = plans.send(plans.Arrived(data, decode_plan(data)), allow_download=False, by=people.scientist)
    node = member("clinic", people.administrator)
    said = Announcement.objects.create(
        node=node, dataset_id=ABSENT, metadata=metadata(), size=1, revision=1, announced=clock.now()
    )
    Membership.objects.create(
        url="https://net.example", public_key=keys.public_key(), fingerprint="f" * 32, pinned=clock.now()
    )
    release = answer_it(ask(people.scientist, dataset, "k"), SECRET.encode())
    budget = ask_for_budget(dataset, epsilon=1.0, reason="A study.", by=people.scientist)
    return {
        "accounts_user": str(people.scientist.pk),
        "accounts_role": "owner",
        "accounts_team": str(team.pk),
        "accounts_accesstoken": str(token.pk),
        "audit_auditevent": "1",
        "budgets_domain": str(Domain.objects.get().pk),
        "budgets_release": str(release.pk),
        "compute_livesession": str(open_session(people.scientist).pk),
        "compute_storedanswer": str(answer.pk),
        "compute_disclosure": str(disclosure.pk),
        "datarequests_budgetrequest": str(budget.pk),
        "datarequests_datarequest": str(request.pk),
        "datasets_dataset": str(dataset.pk),
        "datasets_datasetversion": str(dataset.current.pk),
        "tags_tag": str(Tag.objects.get(text="#Layoffs").pk),
        "permissions_grant": str(grant.pk),
        "plans_plan": str(plan.pk),
        "network_membership": "1",
        "network_node": node.pk,
        "network_announcement": str(said.pk),
    }


def client_of(people: People, who: str) -> Client:
    client = Client()
    if who != "anonymous":
        client.force_login(getattr(people, who))
    return client


def pages() -> Iterator[tuple[str, str]]:
    """Name and address pattern of everything that the console's site answers."""

    def walk(patterns: list[URLPattern | URLResolver], prefix: str) -> Iterator[tuple[str, str]]:
        for entry in patterns:
            if isinstance(entry, URLResolver):
                yield from walk(entry.url_patterns, prefix + str(entry.pattern))
            else:
                yield entry.name or "catch-all", prefix + str(entry.pattern)

    yield from walk(admin.site.urls[0], "/admin/")


def address(name: str, pattern: str, house: dict[str, str], act: str = "none") -> str:
    key = house.get(name.rpartition("_")[0], "")
    return pattern.replace("<path:object_id>", key).replace("<slug:act>", act)


def first_act(name: str) -> str:
    return (ACTS[name.rpartition("_")[0]] or ["none"])[0]


def test_every_page_of_the_console_is_in_the_matrix() -> None:
    assert {name for name, _ in pages()} == {*MATRIX, "login", "catch-all"}


def test_every_act_of_the_console_is_known_here() -> None:
    pages_of_models: dict[Any, Any] = admin.site._registry
    found = {
        f"{model._meta.app_label}_{model._meta.model_name}": [act.slug() for act in page.acts]
        for model, page in pages_of_models.items()
    }
    assert found == ACTS


@pytest.mark.parametrize("who", WHO)
def test_nobody_opens_a_page_that_is_not_for_them(people: People, house: dict[str, str], who: str) -> None:
    client = client_of(people, who)
    found, expected = {}, {}
    for name, pattern in pages():
        if name in MATRIX:
            act = first_act(name) if name.endswith("_act") else "none"
            answer = client.get(address(name, pattern, house, act))
            found[name] = answer.status_code
            expected[name] = int(MATRIX[name].split()[WHO.index(who)])
            if who in ("anonymous", "scientist") and name != "logout":
                assert answer["Location"].startswith("/admin/login/"), name
    assert found == expected


@pytest.mark.parametrize("who", WHO)
def test_a_network_shows_its_own_pages_and_none_of_a_node(people: People, house: dict[str, str], who: str) -> None:
    client, addresses = client_of(people, who), dict(pages())
    with override_settings(GRID_ROLE="network"):
        found = {
            name: client.get(address(name, addresses[name], house, first_act(name))).status_code
            for name in ON_A_NETWORK
        }
    assert found == {name: int(row.split()[WHO.index(who)]) for name, row in ON_A_NETWORK.items()}


@pytest.mark.parametrize("who", WHO[2:])
def test_what_is_hidden_looks_exactly_like_what_does_not_exist(people: People, house: dict[str, str], who: str) -> None:
    client, addresses = client_of(people, who), dict(pages())
    for name, row in MATRIX.items():
        if name.endswith("_change") and row.split()[WHO.index(who)] in ("403", "404"):
            hidden = client.get(address(name, addresses[name], house))
            key = house[name.rpartition("_")[0]]
            absent = client.get(addresses[name].replace("<path:object_id>", ABSENT if "-" in key else "987654"))
            assert (absent.status_code, absent.content) == (hidden.status_code, hidden.content), name


@pytest.mark.parametrize("who", WHO)
def test_looking_changes_nothing(people: People, house: dict[str, str], who: str) -> None:
    """A link on a hostile page is a GET in the reader's name."""
    client, before = client_of(people, who), state()
    for role in ("node", "network"):
        with override_settings(GRID_ROLE=role):
            for name, pattern in pages():
                acts = ACTS[name.rpartition("_")[0]] if name.endswith("_act") else ["none"]
                for act in acts:
                    client.get(address(name, pattern, house, act))
                    client.head(address(name, pattern, house, act))
    assert state() == before


@pytest.mark.parametrize("who", ["anonymous", "scientist", "auditor"])
def test_who_may_not_act_changes_nothing_by_posting(people: People, house: dict[str, str], who: str) -> None:
    client, before = client_of(people, who), state()
    words = {
        "reason": "because", "seen": clock.now().isoformat(), "roles": ["administrator"], "password": "new-pass-1",
        "again": "new-pass-1", "members": "auditor", "username": "mallory", "slug_field": "x", "name": "x",
        "visibility": "listed", "accounts_may_compute": "no", "right": "read", "to": "auditor",
        "dataset": house["datasets_dataset"], "epsilon": "1", "statement": "others", "entities": "10",
        "accounting": "uniform",
    }  # fmt: skip
    for role in ("node", "network"):
        with override_settings(GRID_ROLE=role):
            for name, pattern in pages():
                if "_" not in name or name == "password_change":
                    continue
                for act in ACTS[name.rpartition("_")[0]] if name.endswith("_act") else ["none"]:
                    answer = client.post(address(name, pattern, house, act), words)
                    assert answer.status_code in (302, 403, 404), name
    assert state() == before


@pytest.mark.parametrize("who", WHO[2:])
def test_acts_without_the_token_of_the_page_are_refused(people: People, house: dict[str, str], who: str) -> None:
    client, before = Client(enforce_csrf_checks=True), state()
    client.force_login(getattr(people, who))
    for name, pattern in pages():
        if name.endswith(("_act", "_add")) or name in ("logout", "password_change"):
            act = first_act(name) if name.endswith("_act") else "none"
            assert client.post(address(name, pattern, house, act), {"reason": "x"}).status_code == 403, name
    assert state() == before


@pytest.mark.parametrize("who", WHO)
def test_no_page_has_a_private_value_or_a_secret(people: People, house: dict[str, str], who: str) -> None:
    client = client_of(people, who)
    secrets = [token.digest for token in AccessToken.objects.all()] + [user.password for user in User.objects.all()]
    version = Dataset.objects.get().current
    secrets += [SECRET, version.sha256]
    for name, pattern in pages():
        text = client.get(address(name, pattern, house, first_act(name) if name.endswith("_act") else "")).content
        for secret in secrets:
            assert secret.encode() not in text, name


@pytest.mark.parametrize(
    ("who", "page", "question"),
    [
        ("auditor", "accounts/user", "password__startswith=argon2"),
        ("administrator", "accounts/user", "password__startswith=argon2"),
        ("administrator", "accounts/accesstoken", "digest__startswith=a"),
        ("administrator", "accounts/accesstoken", "user__password__startswith=argon2"),
        ("owner", "compute/storedanswer", "data__gt=1"),
        ("owner", "budgets/release", "data__gt=1"),
        ("owner", "budgets/release", "question__contains=weight"),
        ("owner", "budgets/domain", "placements__dataset__name__startswith=S"),
        ("owner", "datarequests/budgetrequest", "requester__password__startswith=argon2"),
        ("owner", "datasets/dataset", "versions__entity_count__gt=3"),
        ("owner", "datasets/dataset", "versions__sha256__startswith=a"),
        ("owner", "datasets/datasetversion", "entity_count__gt=3"),
        ("owner", "datasets/datasetversion", "row_count__gt=3"),
        ("owner", "datasets/datasetversion", "sha256__startswith=a"),
        ("owner", "tags/tag", "datasets__name__startswith=S"),
        ("owner", "datarequests/datarequest", "requester__password__startswith=argon2"),
        ("administrator", "compute/livesession", "user__password__startswith=argon2"),
        ("owner", "permissions/grant", "given_by__password__startswith=argon2"),
    ],
)
def test_addresses_of_lists_answer_no_question_about_hidden_columns(
    people: People, house: dict[str, str], who: str, page: str, question: str
) -> None:
    assert client_of(people, who).get(f"/admin/{page}/?{question}").status_code == 400


def test_another_owner_finds_no_trace_of_a_dataset_that_is_not_for_them(people: People, house: dict[str, str]) -> None:
    client = client_of(people, "other_owner")
    publish(people.other_owner, "My own")
    slug = Dataset.objects.get(pk=house["datasets_dataset"]).slug
    for page in (
        "", "datasets/dataset/", "datasets/datasetversion/", "tags/tag/", "permissions/grant/",
        "permissions/grant/add/", f"permissions/grant/?of={slug}",
        "datarequests/datarequest/", f"datarequests/datarequest/?of={slug}", "compute/storedanswer/",
        "budgets/domain/", f"budgets/domain/{house['budgets_domain']}/change/", "budgets/release/",
        "datarequests/budgetrequest/",
        f"compute/storedanswer/?of={slug}",
    ):  # fmt: skip
        text = client.get(f"/admin/{page}").content.decode()
        assert "Staff list" not in text and "Layoffs" not in text and house["datasets_dataset"] not in text, page
        assert "of=" in page or "staff-list" not in text, page


def test_a_request_on_two_owners_data_names_to_each_only_what_is_for_them(people: People) -> None:
    secret = publish(people.owner, "Staff list", visibility="granted")
    permissions.give(secret, to=people.scientist, right="compute", reason="A study.", by=people.owner)
    both = submit(people.scientist, secret, publish(people.other_owner, "My own"))
    client = client_of(people, "other_owner")
    for page in ("datarequests/datarequest/", f"datarequests/datarequest/{both.pk}/change/"):
        text = client.get(f"/admin/{page}").content.decode()
        assert "my-own" in text and "Staff list" not in text and "staff-list" not in text


def test_a_dataset_page_names_who_was_granted_what_to_its_owner_only(people: People) -> None:
    dataset = publish(people.owner, visibility=Visibility.LISTED)
    permissions.give(dataset, to=people.scientist, right="read", reason="A study.", by=people.owner)
    page = f"/admin/datasets/dataset/{dataset.pk}/change/"
    assert b"for scientist" in client_of(people, "owner").get(page).content
    assert b"for scientist" in client_of(people, "auditor").get(page).content
    for who in ("other_owner", "reviewer"):
        assert b"scientist" not in client_of(people, who).get(page).content


def state() -> list[object]:
    """What may not change by looking."""
    rows: list[object] = [AuditEvent.objects.count(), Node.objects.filter(state=State.APPROVED).count()]
    for model in (
        BudgetRequest,
        DataRequest,
        Domain,
        EpochProposal,
        Pot,
        Release,
        Grant,
        AccessToken,
        Dataset,
        LiveSession,
        Membership,
        Node,
        Plan,
        Team,
    ):
        rows += list(model._default_manager.order_by("pk").values())
    rows += [
        (user.username, user.is_active, user.password, [role.pk for role in user.roles.order_by("pk")])
        for user in User.objects.all()
    ]
    return rows


def test_the_console_asks_who_you_are_before_it_says_that_a_page_does_not_exist(people: People) -> None:
    assert Client().get("/admin/nowhere/").status_code == 302
    assert client_of(people, "owner").get("/admin/nowhere/").status_code == 404
