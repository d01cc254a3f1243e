"""An upgrade keeps what a deployment had, on both databases, and can be taken back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

from apps.audit.models import AuditEvent
from apps.datarequests.models import DataRequest
from apps.permissions.models import Grant
from gridsite.env import Env
from tests.factories import databases

OLD = "old"
OURS = ["accounts", "audit", "tags", "datasets", "permissions", "network", "plans", "compute", "datarequests"]
# Datasets came with the index of tokens: without it there is no state that was ever released.
FIRST = [(app, "0002_tokens" if app == "tags" else "0001_initial") for app in OURS]
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def database(
    request: pytest.FixtureRequest, tmp_path: Path, django_db_setup: None, django_db_blocker: Any
) -> Iterator[BaseDatabaseWrapper]:
    """An empty database beside the one of the other tests."""
    if request.param == "sqlite":
        own = {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "old.sqlite3", "OPTIONS": {}}
    else:
        address = databases.make_database(f"old_{tmp_path.name}")
        own = Env({"OLD": address}).database("OLD", {}, help="")
    connections.databases[OLD] = connections.databases["default"] | own
    with django_db_blocker.unblock():
        yield connections[OLD]
        connections[OLD].close()
    del connections[OLD], connections.databases[OLD]


def migrate(database: BaseDatabaseWrapper, targets: list[tuple[str, str | None]] | None = None) -> Any:
    """Migrate, to the newest when nothing is said; the models of that state."""
    executor = MigrationExecutor(database)
    targets = targets or executor.loader.graph.leaf_nodes()
    executor.migrate(targets)
    return executor.loader.project_state([target for target in targets if target[1]]).apps


def fill(models: Any) -> None:
    """A row in every table of the first release, and a request in each of its states."""

    def make(model: str, **fields: Any) -> Any:
        row = models.get_model(model)(**fields)
        row.save(using=OLD, force_insert=True)
        return row

    role = make("accounts.Role", name="owner", title="Owner", capabilities=["datasets.publish"])
    owner = make("accounts.User", username="owner", password="hash", created=NOW)
    scientist = make("accounts.User", username="scientist", password="hash", created=NOW)
    owner.roles.add(role)
    make("accounts.Team", slug="ward", name="Ward", created=NOW).members.add(scientist)
    make("accounts.AccessToken", user=owner, name="laptop", prefix="00000001", digest="d" * 64, created=NOW,
         expires=NOW + timedelta(days=90))  # fmt: skip
    make("accounts.LockOut", key="k" * 64, failures=3, since=NOW)
    event = make("audit.AuditEvent", seq=1, at=NOW, verb="signed_in", payload_digest="p" * 64, previous="0" * 64,
                 hash="1" * 64, signature="s" * 128)  # fmt: skip
    make("audit.AuditText", event=event, salt="salt", body='{"a":1}')
    make("audit.AuditHead", id=1, seq=1, hash="1" * 64)
    tag = make("tags.Tag", text="#Births", normal="#births")
    dataset = make("datasets.Dataset", slug="births", name="Births", description="", visibility="listed", created=NOW)
    dataset.tags.add(tag)
    make("tags.Entry", kind="dataset", key=dataset.pk.hex)
    make("datasets.DatasetVersion", dataset=dataset, number=1, kind="tensor", dtype="float64", shape=[2, 1],
         columns=[{"name": "a"}], rows_public=True, entities="rows", row_count=2, entity_count=2,
         max_rows_per_entity=1, missing={"policy": "refuse"}, presence=False, nbytes=16, sha256="f" * 64,
         created=NOW)  # fmt: skip
    make("datasets.Revision", id=1, last=7)
    make("permissions.Ownership", dataset=dataset, owner=owner)
    make("permissions.Grant", dataset=dataset, user=scientist, right="aggregate", reason="A study.", given_by=owner,
         columns=["a"], created=NOW)  # fmt: skip
    node = make("network.Node", id="ward", name="Ward", url="https://ward.example", public_key="a" * 64,
                fingerprint="a" * 32, address="198.51.100.7", state="approved", asked=NOW, joined=NOW,
                decided_at=NOW, decided_by=owner)  # fmt: skip
    make("network.Announcement", node=node, dataset_id=dataset.pk, metadata={"slug": "births"}, revision=7,
         announced=NOW)  # fmt: skip
    make("network.Membership", id=1, url="https://net.example", public_key="b" * 64, fingerprint="b" * 32, pinned=NOW)
    make("network.UsedOnce", kind="nonce", value="n", expires=NOW)
    make("plans.Plan", owner=owner, name="norm", data=b"plan", nbytes=4, sha256="c" * 64, signature={}, created=NOW)
    make("compute.StoredAnswer", key="q" * 64, dataset=dataset, version=1, question="sum of a", dtype="float64",
         shape=[], data=bytes(8))  # fmt: skip
    decision = {"decided_by": owner, "decided_at": NOW, "decision_reason": "Fine."}
    answer = {"answered_at": NOW, "answer_kind": "tensor", "answer_header": {"dtype": "float64"}}
    states: list[tuple[str, dict[str, Any]]] = [
        ("submitted", {}),
        ("approved", decision),
        ("denied", decision),
        ("withdrawn", {}),
        ("approved", decision | answer),
        ("delivered", decision | answer | {"delivered_at": NOW}),
    ]
    for number, (state, more) in enumerate(states, 1):
        asked = make("datarequests.DataRequest", id=UUID(int=number), requester=scientist, state=state,
                     reason="A study.", program_hash="e" * 64, program=b"program", words="words", kind="tensor",
                     label="rows", created=NOW, updated=NOW, **more)  # fmt: skip
        make("datarequests.RequestInput", request=asked, dataset=dataset, version=1, columns=["a"])


def content(models: Any) -> dict[str, list[dict[str, Any]]]:
    """All rows of our tables, as the models of a state read them."""
    return {
        model._meta.label: [
            {name: bytes(value) if isinstance(value, memoryview) else value for name, value in row.items()}
            for row in model._default_manager.using(OLD).order_by("pk").values()
        ]
        for model in models.get_models(include_auto_created=True)
        if model._meta.app_label in OURS
    }


def test_an_upgrade_keeps_every_row_and_can_be_taken_back(database: BaseDatabaseWrapper) -> None:
    first = migrate(database, FIRST)
    fill(first)
    before = content(first)
    assert all(before.values()), "a table is empty"
    newer = content(migrate(database))
    spent = {"program", "held_bytes"}  # what will not run again keeps no program
    for label, rows in before.items():
        kept = [{name: row[name] for name in rows[0].keys() - spent} for row in newer[label]]
        assert kept == [{name: row[name] for name in row.keys() - spent} for row in rows], label
    programs = [bytes(row.program) for row in DataRequest.objects.using(OLD).order_by("pk")]
    assert programs == [b"program", b"program", b"", b"", b"", b""]
    assert [grant.programs for grant in Grant.objects.using(OLD)] == [None]
    with pytest.raises(DatabaseError, match="append-only"):
        AuditEvent.objects.using(OLD).update(verb="signed_out")

    back = content(migrate(database, FIRST))
    for label, rows in before.items():
        assert [{**row, "program": None} for row in back[label]] == [{**row, "program": None} for row in rows], label


def test_all_of_it_can_be_taken_away_with_rows_in_it(database: BaseDatabaseWrapper) -> None:
    fill(migrate(database, FIRST))
    migrate(database)
    migrate(database, [(app, None) for app in reversed([*OURS, "budgets"])])
    with database.cursor() as cursor:
        left = database.introspection.table_names(cursor)
    assert not [table for table in left if table.split("_")[0] in [*OURS, "budgets"]]
    migrate(database)
