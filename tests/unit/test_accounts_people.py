"""Accounts, roles and teams: names are given once, and only administrators change who may do what."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError

from apps.accounts import actions, capabilities, queries
from apps.accounts.models import Role, Team, User
from apps.accounts.roles import seed
from apps.audit.models import AuditEvent
from gridclient.wire.errors import ConflictError, GridError, InvalidInputError, NotPermittedError
from tests.factories.people import PASSWORD, People, make_user

pytestmark = pytest.mark.django_db


def verbs() -> list[str]:
    return list(AuditEvent.objects.order_by("seq").values_list("verb", flat=True))


# --- making accounts ---------------------------------------------------------------------------------------------


def test_an_administrator_makes_an_account_and_the_log_says_so(people: People) -> None:
    user = actions.create_user(username="Ana", password=PASSWORD, roles=["scientist"], by=people.administrator)
    assert user.username == "ana"
    assert user.password.startswith("argon2")
    event = AuditEvent.objects.first()
    assert event is not None
    assert (event.verb, event.actor_name, event.target) == ("user_created", "administrator", "ana")
    assert event.payload == {"roles": ["scientist"]}


@pytest.mark.parametrize("who", ["owner", "scientist", "reviewer", "auditor", "stranger"])
def test_nobody_else_makes_or_changes_accounts(people: People, who: str) -> None:
    by = getattr(people, who)
    verb_calls = [
        lambda: actions.create_user(username="mallory", password=PASSWORD, roles=["administrator"], by=by),
        lambda: actions.set_roles(by, roles=["administrator"], by=by),
        lambda: actions.deactivate(people.administrator, by=by),
        lambda: actions.reactivate(people.stranger, by=by),
        lambda: actions.set_password(people.administrator, password=PASSWORD + "!", by=by),
        lambda: actions.create_token(user=people.administrator, name="theirs", expires=None, by=by),
        lambda: actions.create_team(slug="ward", name="Ward", members=[by], by=by),
        lambda: actions.set_members(Team(slug="ward"), members=[by], by=by),
    ]
    before = AuditEvent.objects.count()
    for call in verb_calls:
        with pytest.raises(NotPermittedError):
            call()
    assert AuditEvent.objects.count() == before


def test_the_first_account_is_nothing_special() -> None:
    first = make_user("first")
    assert first.capabilities == frozenset()
    assert not User.objects.exclude(pk=first.pk).exists()


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(InvalidInputError) as error:
        actions.create_user(username="a b", password="short", roles=["king", "owner"], by=None)
    text = " ".join(error.value.details["problems"])
    assert "The name must have" in text
    assert "too short" in text
    assert "'king'" in text
    assert not User.objects.exists()


def test_a_password_is_never_in_an_error() -> None:
    for password in ("hunter2", "hunter2hunter2" * 200):
        with pytest.raises(InvalidInputError) as error:
            actions.create_user(username="ana", password=password, roles=[], by=None)
        assert "hunter2" not in str(error.value) + str(error.value.details)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-ana",
        ".ana",
        "ana@home",
        "an a",
        "a" * 65,
        "ana\n",
        "ana\0",
        "аna",
        "ana\u202e",
        "ſam",
        "../etc",
        "an\ud800a",
        "ana/b",
        "@",
    ],
)
def test_a_name_that_could_mislead_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        actions.create_user(username=name, password=PASSWORD, roles=[], by=None)


def test_a_name_is_given_once_in_whatever_case_and_stays_taken(people: People) -> None:
    actions.deactivate(people.owner, by=people.administrator)
    for name in ("owner", "OWNER", "Owner"):
        with pytest.raises(ConflictError):
            actions.create_user(username=name, password=PASSWORD, roles=[], by=None)
    with pytest.raises(IntegrityError):
        User.objects.bulk_create([User(username="OWNER", password="!")])


def test_an_account_cannot_be_deleted_so_that_its_name_could_be_taken_over(people: People) -> None:
    with pytest.raises(ConflictError):
        people.owner.delete()
    with pytest.raises(ConflictError):
        User.objects.filter(username="owner").delete()
    assert User.objects.filter(username="owner").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"username": "ana@evil"},
        {"username": "ana", "federated_key": "k", "federated_id": "1"},
        {"username": "ana@net", "federated_key": "k"},
    ],
)
def test_the_database_keeps_local_and_federated_names_apart(fields: dict[str, str]) -> None:
    with pytest.raises(IntegrityError):
        User.objects.bulk_create([User(password="!", **fields)])


# --- roles -------------------------------------------------------------------------------------------------------

MAY = {
    "owner": {"datasets.publish", "compute.use", "console.open"},
    "scientist": {"compute.use"},
    "reviewer": {"requests.review", "compute.use", "console.open"},
    "auditor": {"everything.read", "audit.read", "console.open"},
    "administrator": {
        "accounts.manage",
        "network.operate",
        "node.operate",
        "audit.read",
        "compute.use",
        "console.open",
    },
    "stranger": set(),
}


@pytest.mark.parametrize("who", MAY)
def test_each_role_gives_what_it_says_and_nothing_else(people: People, who: str) -> None:
    user: User = getattr(people, who)
    assert user.capabilities == MAY[who]
    assert user.is_staff == ("console.open" in MAY[who])


def test_roles_add_up_and_a_change_counts_at_once(people: People) -> None:
    user = people.scientist
    actions.set_roles(user, roles=["scientist", "reviewer"], by=people.administrator)
    assert user.has("requests.review")
    assert user.has("compute.use")
    event = AuditEvent.objects.first()
    assert event is not None
    assert event.payload == {"before": ["scientist"], "after": ["reviewer", "scientist"]}
    actions.set_roles(user, roles=[], by=people.administrator)
    assert not user.has("compute.use")


def test_setting_the_same_roles_again_writes_no_event(people: People) -> None:
    before = AuditEvent.objects.count()
    actions.set_roles(people.owner, roles=["owner"], by=people.administrator)
    assert AuditEvent.objects.count() == before


def test_a_closed_account_may_nothing(people: People) -> None:
    actions.deactivate(people.owner, by=people.administrator)
    assert people.owner.capabilities == frozenset()
    with pytest.raises(NotPermittedError):
        actions.create_token(user=people.owner, name="x", expires=None, by=people.owner)


def test_the_last_administrator_stays(people: People) -> None:
    with pytest.raises(ConflictError):
        actions.deactivate(people.administrator, by=people.administrator)
    with pytest.raises(ConflictError):
        actions.set_roles(people.administrator, roles=["owner"], by=people.administrator)
    second = make_user("second", "administrator")
    actions.set_roles(people.administrator, roles=["owner"], by=second)
    with pytest.raises(ConflictError):
        actions.deactivate(second, by=second)


def test_closing_and_opening_an_account_are_recorded_and_not_done_twice(people: People) -> None:
    actions.deactivate(people.owner, by=people.administrator)
    with pytest.raises(ConflictError):
        actions.deactivate(people.owner, by=people.administrator)
    actions.reactivate(people.owner, by=people.administrator)
    with pytest.raises(ConflictError):
        actions.reactivate(people.owner, by=people.administrator)
    assert verbs()[-2:] == ["user_deactivated", "user_reactivated"]
    assert people.owner.has("datasets.publish")


def test_roles_of_this_release_are_there_and_none_is_rewritten() -> None:
    Role.objects.filter(name="scientist").update(title="Analyst")
    Role.objects.filter(name="auditor").delete()
    seed()
    assert set(Role.objects.values_list("name", flat=True)) == set(capabilities.ROLES)
    assert Role.objects.get(name="scientist").title == "Analyst"


# --- teams -------------------------------------------------------------------------------------------------------


def test_a_team_is_made_and_changed_by_an_administrator(people: People) -> None:
    team = actions.create_team(slug="Ward-3", name="Ward 3", members=[people.scientist], by=people.administrator)
    assert team.slug == "ward-3"
    actions.set_members(team, members=[people.owner], by=people.administrator)
    assert list(team.members.all()) == [people.owner]
    assert verbs()[-2:] == ["team_created", "team_changed"]
    with pytest.raises(ConflictError):
        actions.create_team(slug="ward-3", name="Other", members=[], by=people.administrator)
    with pytest.raises(InvalidInputError):
        actions.create_team(slug="ward 3", name="Other", members=[], by=people.administrator)
    with pytest.raises(InvalidInputError):
        actions.create_team(slug="ward-4", name="Ward\u202e4", members=[], by=people.administrator)


# --- who sees whom -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "everybody"),
    [("administrator", True), ("auditor", True), ("owner", False), ("scientist", False), ("stranger", False)],
)
def test_people_see_themselves_and_only_administrators_and_auditors_see_all(
    people: People, who: str, everybody: bool
) -> None:
    user = getattr(people, who)
    for each in (people.owner, people.scientist, people.stranger):
        actions.create_token(user=each, name="laptop", expires=None, by=None)
    actions.create_team(slug="ward", name="Ward", members=[people.scientist], by=None)
    seen = set(queries.users_visible_to(user))
    assert seen == (set(User.objects.all()) if everybody else {user})
    assert {token.user for token in queries.tokens_visible_to(user)} == (
        {people.owner, people.scientist, people.stranger} if everybody else {user}
    )
    # Owners give rights to teams, so they see them.
    assert queries.teams_visible_to(user).exists() == (everybody or who in ("owner", "scientist"))
    assert not queries.users_visible_to(None).exists()
    assert not queries.tokens_visible_to(None).exists()
    assert not queries.teams_visible_to(None).exists()


def test_names_are_resolved_in_order_and_every_unknown_one_is_told(people: People) -> None:
    assert queries.resolve_users(["Scientist", "owner", "scientist"]) == [people.scientist, people.owner]
    actions.deactivate(people.reviewer, by=None)
    with pytest.raises(InvalidInputError) as error:
        queries.resolve_users(["owner", "bob", "reviewer", "ana"])
    assert error.value.details["unknown"] == ["bob", "reviewer", "ana"]


# --- the console's questions -------------------------------------------------------------------------------------

LABELS = ("accounts", "audit", "compute", "datarequests", "datasets", "network", "permissions", "tags")


@pytest.mark.parametrize("who", MAY)
def test_nobody_deletes_anything_in_the_console(people: People, who: str) -> None:
    user = getattr(people, who)
    for label in LABELS:
        for model in ("user", "auditevent", "accesstoken", "dataset"):
            assert not user.has_perm(f"{label}.delete_{model}")


def test_the_auditor_sees_all_and_changes_nothing(people: People) -> None:
    for label in LABELS:
        assert people.auditor.has_module_perms(label)
        assert people.auditor.has_perm(f"{label}.view_anything")
        assert not people.auditor.has_perms([f"{label}.view_x", f"{label}.change_x"])
        assert not people.auditor.has_perm(f"{label}.add_x")
    assert not people.auditor.has_perm("sessions.view_session")


@pytest.mark.parametrize("who", ["scientist", "stranger"])
def test_without_the_console_every_page_is_closed(people: People, who: str) -> None:
    user = getattr(people, who)
    assert not any(user.has_module_perms(label) for label in LABELS)
    assert not user.has_perm("accounts.view_user")


@pytest.mark.parametrize(
    ("who", "perm", "may"),
    [
        ("administrator", "accounts.change_user", True),
        ("administrator", "accounts.view_accesstoken", True),
        ("administrator", "accounts.change_accesstoken", False),
        ("administrator", "accounts.change_role", False),
        ("administrator", "audit.view_auditevent", True),
        ("administrator", "audit.change_auditevent", False),
        ("administrator", "datasets.view_dataset", False),
        ("owner", "accounts.view_user", False),
        ("owner", "datasets.change_dataset", True),
        ("reviewer", "datarequests.change_datarequest", True),
        ("reviewer", "datasets.change_dataset", False),
        ("owner", "nonsense", False),
    ],
)
def test_pages_follow_from_capabilities(people: People, who: str, perm: str, may: bool) -> None:
    assert getattr(people, who).has_perm(perm) is may


# --- the first administrator -------------------------------------------------------------------------------------


def test_the_first_administrator_is_made_on_the_machine_with_a_password_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    call_command("createaccount", "root", roles="administrator, owner", password_file=file, stdout=io.StringIO())
    user = User.objects.get(username="root")
    assert user.check_password(PASSWORD)
    assert user.has("accounts.manage")
    assert verbs() == ["user_created"]


def test_the_command_reads_standard_input_and_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    with pytest.raises(CommandError, match="too short"):
        call_command("createaccount", "root")
    with pytest.raises(CommandError, match="can't be read"):
        call_command("createaccount", "root", password_file=tmp_path / "absent")
    assert not User.objects.exists()


# --- through a network -------------------------------------------------------------------------------------------

KEY = "ab" * 16


def test_a_user_of_the_network_gets_an_account_once_without_any_right() -> None:
    dana = actions.federated_user(network_key=KEY, user_id="7", display="dana@grid")
    assert (dana.username, dana.capabilities, dana.is_staff) == ("dana@grid", {"compute.use"}, False)
    assert actions.federated_user(network_key=KEY, user_id="7", display="renamed@grid") == dana
    assert User.objects.count() == 1
    assert not dana.has_usable_password()


def test_a_network_cannot_claim_the_name_of_somebody_here(people: People) -> None:
    for display in ("owner", "owner@", "OWNER@grid", "@", "", "owner@grid\u202e", "<script>@grid"):
        user = actions.federated_user(network_key=KEY, user_id=repr(display), display=display)
        assert user.pk != people.owner.pk
        assert "@" in user.username
        assert user.username.isascii()
        assert user.username.isprintable()
        assert "<" not in user.username
    assert queries.resolve_users(["owner"]) == [people.owner]


def test_the_same_name_at_two_networks_is_two_people() -> None:
    first = actions.federated_user(network_key=KEY, user_id="7", display="dana@grid")
    second = actions.federated_user(network_key="cd" * 16, user_id="7", display="dana@grid")
    assert first.pk != second.pk
    assert second.username == "dana-2@grid"


def test_an_account_closed_here_stays_closed_whatever_the_network_says(people: People) -> None:
    dana = actions.federated_user(network_key=KEY, user_id="7", display="dana@grid")
    actions.deactivate(dana, by=people.administrator)
    with pytest.raises(GridError, match="closed"):
        actions.federated_user(network_key=KEY, user_id="7", display="dana@grid")


def test_a_federated_account_has_no_password_to_guess(people: People) -> None:
    dana = actions.federated_user(network_key=KEY, user_id="7", display="dana@grid")
    with pytest.raises(ConflictError):
        actions.set_password(dana, password=PASSWORD, by=people.administrator)
