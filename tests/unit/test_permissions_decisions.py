"""The one decision: no value leaves without a right to all that it depends on; a refusal says what is possible."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from apps.accounts import actions as accounts
from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.audit.verbs import Verb
from apps.datasets.models import Dataset, DatasetVersion
from apps.permissions import actions
from apps.permissions.models import Grant
from apps.permissions.policies import Ask, Closed, Decision, Input, decide
from gridclient.wire.errors import (
    AuthenticationError,
    ConflictError,
    GetNotPermittedError,
    InvalidInputError,
    NotPermittedError,
)
from tests.factories.people import People
from tests.factories.queue import publish

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def births(people: People) -> Dataset:
    return publish(people.owner)


def rows(*datasets: Dataset, columns: list[str] | None = None, label: str = "rows", program: str = "") -> Ask:
    return Ask(label, [Input(str(each.pk), each.current.number, columns) for each in datasets], None, program)


def closed(dataset: Dataset, kind: str = "sum", *columns: str, **changed: Any) -> Ask:
    names = list(columns)
    answer = Closed(kind, str(dataset.pk), changed.pop("version", 1), names)
    return (
        Ask("agg", [Input(str(dataset.pk), 1, names)], answer) if not changed else Ask(**{"closed": answer, **changed})
    )


def give(dataset: Dataset, to: User, right: str, *, by: User, columns: list[str] | None = None) -> Grant:
    return actions.give(dataset, to=to, right=right, columns=columns, reason="Study 7", by=by, now=NOW)


def refused(user: User, ask: Ask, *, checked: bool = True, now: datetime = NOW) -> GetNotPermittedError:
    with pytest.raises(GetNotPermittedError) as caught:
        decide(user, ask, checked=checked, now=now)
    possible = caught.value.details["possible"]
    assert possible and all(each in caught.value.message for each in possible)
    assert ".request(reason=...)" in possible[-1] and "'read'" in possible[0]
    return caught.value


def test_a_public_value_needs_no_right(people: People) -> None:
    assert decide(people.stranger, Ask("public", [])) == Decision("public")


def test_nobody_takes_private_rows_without_a_grant(people: People, births: Dataset) -> None:
    for person in (
        people.scientist,
        people.other_owner,
        people.reviewer,
        people.auditor,
        people.administrator,
        people.stranger,
    ):
        for label in ("rows", "agg", "tainted"):
            refused(person, rows(births, label=label))
        refused(person, closed(births, "sum", "weight_kg"))
        refused(person, closed(births, "count"))
    assert decide(people.owner, rows(births, label="tainted")) == Decision("read")


def test_compute_is_no_right_to_any_value(people: People, births: Dataset) -> None:
    for right in ("discover", "compute"):
        give(births, people.scientist, right, by=people.owner)
    refused(people.scientist, rows(births))
    refused(people.scientist, closed(births, "sum", "weight_kg"))


def test_read_must_hold_on_every_input_and_every_column(people: People, births: Dataset) -> None:
    other = publish(people.other_owner, "others")
    grant = give(births, people.scientist, "read", by=people.owner)
    assert decide(people.scientist, rows(births), now=NOW) == Decision("read", grant)
    refused(people.scientist, rows(births, other))
    refused(people.owner, rows(births, other))
    give(other, people.owner, "read", columns=["weight_kg"], by=people.other_owner)
    refused(people.owner, rows(births, other))
    assert decide(people.owner, rows(births, other, columns=["weight_kg"]), now=NOW).route == "read"


def test_grants_on_columns_add_up_to_all_of_them_and_no_further(people: People, births: Dataset) -> None:
    give(births, people.scientist, "read", columns=["weight_kg"], by=people.owner)
    refused(people.scientist, rows(births, columns=["weight_kg", "length_cm"]))
    refused(people.scientist, rows(births))
    assert decide(people.scientist, rows(births, columns=["weight_kg"]), now=NOW).route == "read"
    give(births, people.scientist, "read", columns=["length_cm"], by=people.owner)
    assert decide(people.scientist, rows(births), now=NOW).route == "read"
    DatasetVersion.objects.filter(dataset=births).update(columns=[])
    refused(people.scientist, rows(births))


def test_a_grant_ends_by_expiry_by_revocation_and_with_the_account(people: People, births: Dataset) -> None:
    grant = actions.give(
        births, to=people.scientist, right="read", expires=NOW + timedelta(days=1), reason="x", by=people.owner, now=NOW
    )
    assert decide(people.scientist, rows(births), now=NOW).grant == grant
    refused(people.scientist, rows(births), now=NOW + timedelta(days=1))
    actions.revoke(grant, by=people.owner)
    refused(people.scientist, rows(births))
    accounts.deactivate(people.owner, by=people.administrator)
    people.owner.refresh_from_db()
    with pytest.raises(AuthenticationError):
        decide(people.owner, rows(births))


def test_an_aggregate_grant_answers_the_closed_set_and_nothing_else(people: People, births: Dataset) -> None:
    grant = give(births, people.scientist, "aggregate", by=people.owner)
    for kind in ("sum", "mean"):
        found = decide(people.scientist, closed(births, kind, "weight_kg", "length_cm"), checked=True, now=NOW)
        assert found == Decision("aggregate", grant)
    assert decide(people.scientist, closed(births, "count"), checked=True, now=NOW) == Decision("aggregate", grant)
    source = [Input(str(births.pk), 1, ["weight_kg"])]
    for ask in (
        rows(births),
        rows(births, label="agg"),
        rows(births, label="tainted"),
        closed(births, "median", "weight_kg"),
        closed(births, "sum", "unknown"),
        closed(births, "sum", "weight_kg", version=2),
        closed(births, "sum", "weight_kg", label="rows", inputs=source),
        closed(births, "sum", "weight_kg", label="agg", inputs=[*source, Input(str(publish(people.owner).pk), 1)]),
        closed(births, "sum", "weight_kg", label="agg", inputs=[Input(str(births.pk), 2)]),
    ):
        refused(people.scientist, ask)
    refused(people.stranger, closed(births, "sum", "weight_kg"))


def test_an_aggregate_grant_on_a_column_sums_that_column_only(people: People, births: Dataset) -> None:
    give(births, people.scientist, "aggregate", columns=["weight_kg"], by=people.owner)
    assert decide(people.scientist, closed(births, "sum", "weight_kg"), checked=True, now=NOW).route == "aggregate"
    refused(people.scientist, closed(births, "sum", "weight_kg", "length_cm"))
    refused(people.scientist, closed(births, "sum"))


def test_an_exact_sum_needs_declared_bounds(people: People, births: Dataset) -> None:
    give(births, people.scientist, "aggregate", by=people.owner)
    version = births.current
    version.columns[1] |= {"low": None, "high": None}
    version.save()
    assert "declared bounds" in refused(people.scientist, closed(births, "sum", "length_cm")).message
    assert "declared bounds" in refused(people.scientist, closed(births, "mean", "weight_kg", "length_cm")).message
    assert decide(people.scientist, closed(births, "sum", "weight_kg"), checked=True, now=NOW).route == "aggregate"
    version.columns[1] |= {"kind": "category", "categories": ["a", "b"]}
    version.save()
    refused(people.scientist, closed(births, "sum", "length_cm"))
    version.columns[1] |= {"kind": "boolean", "categories": None}
    version.save()
    assert decide(people.scientist, closed(births, "sum", "length_cm"), checked=True, now=NOW).route == "aggregate"


def test_what_its_checks_do_not_allow_is_not_answered_exactly(people: People, births: Dataset) -> None:
    grant = give(births, people.scientist, "aggregate", by=people.owner)
    asks = (closed(births, "count"), closed(births, "mean", "weight_kg"), closed(births, "variance", "weight_kg"))
    texts = {refused(people.scientist, ask, checked=False).message for ask in asks}
    assert len(texts) == 1 and "where its checks allow it" in texts.pop()
    for ask in asks:
        assert decide(people.scientist, ask, checked=True, now=NOW) == Decision("aggregate", grant)


def test_a_grant_on_columns_is_for_both_factors_and_for_the_partition(people: People, births: Dataset) -> None:
    give(births, people.scientist, "aggregate", columns=["weight_kg"], by=people.owner)
    inputs = [Input(str(births.pk), 1, ["weight_kg"])]
    product = Closed("product", str(births.pk), 1, ["weight_kg"], ["length_cm"])
    grouped = Closed("count", str(births.pk), 1, [], [], "length_cm")
    for answer in (product, grouped):
        refused(people.scientist, Ask("tainted", inputs, answer))
    own = Closed("product", str(births.pk), 1, ["weight_kg"], ["weight_kg"])
    assert decide(people.scientist, Ask("agg", inputs, own), checked=True, now=NOW).route == "aggregate"


def test_a_refusal_without_a_grant_is_the_same_whatever_the_data(people: People, births: Dataset) -> None:
    before = refused(people.scientist, closed(births, "sum", "weight_kg")).message
    DatasetVersion.objects.filter(dataset=births).update(entity_count=1)
    assert refused(people.scientist, closed(births, "sum", "weight_kg")).message == before


def test_a_refusal_is_the_same_for_a_hidden_dataset_and_for_none(people: People, births: Dataset) -> None:
    Dataset.objects.update(visibility="granted")
    absent = Ask("rows", [Input(str(uuid4()), 1)])
    assert refused(people.scientist, rows(births)).message == refused(people.scientist, absent).message
    none = Closed("sum", absent.inputs[0].dataset, 1, ["weight_kg"])
    hidden, nothing = closed(births, "sum", "weight_kg"), Ask("agg", absent.inputs, none)
    assert refused(people.scientist, hidden).message == refused(people.scientist, nothing).message


def test_an_approval_holds_for_its_program_its_person_and_every_input(people: People, births: Dataset) -> None:
    other = publish(people.other_owner, "others")
    program, request = "ab" * 32, uuid4()
    both: dict[str, Any] = {"program_hash": program, "request_id": request}
    grants = actions.give_once(datasets=[births, births], user=people.scientist, by=people.owner, **both)
    assert len(grants) == 1
    asked = rows(births, label="tainted", program=program)
    assert decide(people.scientist, asked) == Decision("approved", grants[0])
    refused(people.stranger, asked)
    refused(people.scientist, rows(births, label="tainted", program="cd" * 32))
    refused(people.scientist, rows(births, label="tainted", program=""))
    refused(people.scientist, rows(births, other, label="tainted", program=program))
    actions.give_once(datasets=[other], user=people.scientist, by=people.other_owner, **both)
    assert decide(people.scientist, rows(births, other, program=program)).route == "approved"
    actions.revoke(grants[0], by=people.owner)
    refused(people.scientist, asked)


def trained(*datasets: Dataset, program: str = "ab" * 32, **changed: Any) -> Ask:
    inputs = [Input(str(each.pk), each.current.number, ["weight_kg"]) for each in datasets]
    return Ask(**{"label": "tainted", "inputs": inputs, "program_hash": program, "trained": True, **changed})


def test_a_train_grant_gives_what_training_made_and_nothing_else(people: People, births: Dataset) -> None:
    grant = give(births, people.scientist, "train", by=people.owner)
    assert decide(people.scientist, trained(births), now=NOW) == Decision("train", grant)
    for ask in (trained(births, trained=False), rows(births), rows(births, label="agg"), closed(births, "count"),
                closed(births, "sum", "weight_kg")):  # fmt: skip
        refused(people.scientist, ask)
    assert "is missing" in refused(people.scientist, trained(births, trained=False, untrained="x is missing.")).message
    actions.revoke(grant, by=people.owner)
    refused(people.scientist, trained(births))


def test_no_lower_right_gives_what_training_made(people: People, births: Dataset) -> None:
    for right in ("discover", "compute", "aggregate"):
        give(births, people.scientist, right, by=people.owner)
    assert "'train' grant on every dataset" in refused(people.scientist, trained(births)).message
    assert "'train'" not in refused(people.scientist, rows(births)).message
    give(births, people.scientist, "read", by=people.owner)
    assert decide(people.scientist, trained(births), now=NOW).route == "read"


def test_train_must_hold_on_every_dataset_and_column(people: People, births: Dataset) -> None:
    other = publish(people.other_owner, "others")
    give(births, people.scientist, "train", columns=["length_cm"], by=people.owner)
    refused(people.scientist, trained(births))
    give(births, people.scientist, "train", by=people.owner)
    assert decide(people.scientist, trained(births), now=NOW).route == "train"
    refused(people.scientist, trained(births, other))
    refused(people.owner, trained(births, other))
    give(other, people.scientist, "read", by=people.other_owner)
    assert decide(people.scientist, trained(births, other), now=NOW).route == "train"
    give(other, people.owner, "train", by=people.other_owner)
    assert decide(people.owner, trained(births, other), now=NOW).route == "train"


def test_a_train_grant_for_programs_is_for_these(people: People, births: Dataset) -> None:
    approved, another = "ab" * 32, "cd" * 32
    grant = actions.give(
        births, to=people.scientist, right="train", programs=[approved], reason="x", by=people.owner, now=NOW
    )
    assert decide(people.scientist, trained(births, program=approved), now=NOW) == Decision("train", grant)
    assert another in refused(people.scientist, trained(births, program=another)).message
    refused(people.scientist, trained(births, program=""))
    event = AuditEvent.objects.get(verb=Verb.GRANT_GIVEN)
    assert event.payload is not None and event.payload["programs"] == [approved]


def test_a_grant_is_given_and_taken_back_by_the_owner_only_and_audited(people: People, births: Dataset) -> None:
    for person in (people.scientist, people.other_owner, people.administrator, people.auditor, people.reviewer):
        with pytest.raises(NotPermittedError):
            give(births, person, "read", by=person)
    assert not Grant.objects.exists()
    grant = give(births, people.scientist, "aggregate", columns=["weight_kg"], by=people.owner)
    event = AuditEvent.objects.get(verb=Verb.GRANT_GIVEN)
    assert (event.actor_id, event.target) == (str(people.owner.pk), f"dataset:{births.pk}")
    with pytest.raises(NotPermittedError):
        actions.revoke(grant, by=people.scientist)
    actions.revoke(grant, by=people.owner)
    with pytest.raises(ConflictError):
        actions.revoke(grant, by=people.owner)
    assert AuditEvent.objects.filter(verb=Verb.GRANT_REVOKED).count() == 1


def test_a_bad_grant_is_refused_with_every_problem(people: People, births: Dataset) -> None:
    accounts.deactivate(people.stranger, by=people.administrator)
    people.stranger.refresh_from_db()
    with pytest.raises(InvalidInputError) as caught:
        actions.give(
            births, to=people.stranger, right="all", columns=["x", "y"], expires=NOW, reason=" ", by=people.owner,
            now=NOW,
        )  # fmt: skip
    assert len(caught.value.details["problems"]) == 6
    with pytest.raises(InvalidInputError):
        give(births, people.scientist, "read", columns=[], by=people.owner)
    named: dict[str, Any] = {"to": people.scientist, "reason": "Study 7", "by": people.owner}
    for right, programs in (("read", ["ab" * 32]), ("train", []), ("train", ["abc"]), ("train", ["AB" * 32])):
        with pytest.raises(InvalidInputError):
            actions.give(births, right=right, programs=programs, **named)
    assert not Grant.objects.exists() and not AuditEvent.objects.filter(verb=Verb.GRANT_GIVEN).exists()


def test_new_words_are_the_owners_and_audited(people: People, births: Dataset) -> None:
    for person in (people.scientist, people.administrator, people.other_owner):
        with pytest.raises(NotPermittedError):
            actions.describe(births, by=person, name="mine")
    changed = actions.describe(births, by=people.owner, name="Deliveries", visibility="accounts")
    assert (changed.name, changed.visibility) == ("Deliveries", "accounts")
    assert AuditEvent.objects.get(verb=Verb.DATASET_CHANGED).actor_name == "owner"
