"""Who may put a program into the queue: owners would review questions of people whom they never let compute."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.accounts.models import User
from apps.audit.models import AuditEvent
from apps.core.clock import now
from apps.datarequests.models import DataRequest
from apps.datasets.models import Dataset
from apps.permissions.actions import give, revoke
from apps.permissions.models import Grant
from gridclient.wire.errors import NotFoundError, NotPermittedError
from tests.factories.people import People, make_user
from tests.factories.queue import publish, submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def births(people: People) -> Dataset:
    """Granted to nobody."""
    return publish(people.owner, visibility="granted")


def granted(dataset: Dataset, to: User, right: str, by: User) -> Grant:
    return give(dataset, to=to, right=right, reason="A test.", by=by)


def refused(requester: User, *datasets: Dataset, error: type[Exception] = NotPermittedError) -> None:
    """The request is refused, and leaves neither a row nor a trace in the audit log."""
    before = AuditEvent.objects.count()
    with pytest.raises(error):
        submit(requester, *datasets)
    assert not DataRequest.objects.exists()
    assert AuditEvent.objects.count() == before


def test_who_may_only_discover_a_dataset_asks_nothing_of_it(people: People, births: Dataset) -> None:
    granted(births, people.scientist, "discover", people.owner)
    refused(people.scientist, births)
    granted(births, people.scientist, "compute", people.owner)
    assert submit(people.scientist, births).state == "submitted"


def test_who_sees_a_listed_dataset_but_may_not_compute_asks_nothing_of_it(people: People) -> None:
    listed = publish(people.owner, accounts_may_compute=False)
    refused(people.scientist, listed)
    refused(people.auditor, publish(people.owner, name="March births"))


def test_one_dataset_that_may_only_be_discovered_refuses_the_whole_program(people: People, births: Dataset) -> None:
    granted(births, people.scientist, "discover", people.owner)
    refused(people.scientist, publish(people.owner, name="March births"), births)


def test_to_whom_a_dataset_does_not_exist_it_does_not_exist_here(people: People, births: Dataset) -> None:
    refused(people.scientist, births, error=NotFoundError)
    granted(births, people.scientist, "discover", people.owner)
    refused(make_user("another", "scientist"), births, error=NotFoundError)


def test_right_that_was_taken_back_or_is_over_asks_nothing(people: People, births: Dataset) -> None:
    granted(births, people.scientist, "discover", people.owner)
    revoke(granted(births, people.scientist, "compute", people.owner), by=people.owner)
    refused(people.scientist, births)
    late = granted(births, people.scientist, "compute", people.owner)
    Grant.objects.filter(pk=late.pk).update(expires=now() - timedelta(seconds=1))
    refused(people.scientist, births)
