"""Attack 13 on people who are charged each by itself: whether somebody has nothing left is not to be seen.

Twins are two domains that differ in one person: in one of them that person contributed the most to every answer so far,
and has nothing left; in the other nothing. What an owner would lose: that person's values, which made the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.api import outputs
from apps.budgets import accounts
from apps.budgets.models import Domain, Release
from apps.compute import spending
from apps.compute.certificates import certificate
from apps.datasets.models import Dataset
from gridclient.wire.errors import GridError
from tests.factories.asker import Asker
from tests.factories.individuals import allow, pot_of, publish, spent, town
from tests.factories.people import People

pytestmark = pytest.mark.django_db(transaction=True)
OTHERS = [0.5] * 99
ANSWERS = 6
OWN = ("id", "position", "hash", "previous", "audit_event", "at", "program", "data")
"""What names one of two things that are alike."""


class Twin:
    """A domain with a hundred people, and a session of an analyst."""

    def __init__(self, people: People, name: str, value: float, folder: Path) -> None:
        self.domain: Domain = town(people.owner, name)
        self.dataset: Dataset = publish(people.owner, [value, *OTHERS], range(100), self.domain, name=name)
        self.user = people.scientist
        allow(self.dataset, self.user, people.owner)
        self.asker = Asker(self.user, folder)

    def seen(self, action: Callable[[], Any]) -> Any:
        """What an answer shows, without the answer; or the error."""
        try:
            found = action()
        except GridError as error:
            return type(error).__name__, self.alike(error.message), self.alike(str(error.details))
        receipt = {name: value for name, value in (found.receipt or {}).items() if name not in OWN}
        return found.route, found.answer.header, receipt

    def alike(self, text: str) -> str:
        return text.replace(self.domain.slug, "X").replace(str(self.dataset.pk), "X")

    def choice(self) -> Any:
        return self.asker.recorded(
            "aten::argmax", self.asker.recorded("aten::sum.dim_IntList", self.asker.rows(self.dataset), [0])
        )


def test_whether_one_person_has_nothing_left_is_not_to_be_seen(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "MOST_BEYOND", 3)
    real, waits = spending.expected, list[float]()
    # When an answer leaves is noted in place of waiting for it.
    monkeypatch.setattr(spending, "expected", lambda *given: waits.append(real(*given)) or 1e-3)
    told = []
    for name, value in (("first", 1.0), ("second", 0.5)):
        twin = Twin(people, name, value, tmp_path)
        waits.clear()
        totals = [twin.asker.total(twin.dataset, times=1 + number / 8) for number in range(ANSWERS + 1)]
        rows = [twin.seen(lambda twin=twin, total=total: twin.asker.take(total)) for total in totals]  # type: ignore[misc]
        rows.append(twin.seen(lambda twin=twin: twin.asker.take(twin.choice(), 0.3)))  # type: ignore[misc]
        releases = Release.objects.filter(charges__pot=pot_of(twin.domain)).order_by("seq")
        for release in releases:
            said = certificate(release, to=twin.user)
            rows.append({key: twin.alike(str(each)) for key, each in said.items() if key not in OWN})
        rows.append(twin.alike(str(outputs.domains([twin.domain], twin.user))))
        rows.append(twin.alike(str(spending.budget(twin.user, twin.dataset))))
        told.append((rows, [*waits], twin.asker.asked))
        first = releases[0].charges.get()
        has_nothing_left = max(spent(twin.domain)) + first.amount > pot_of(twin.domain).cap
        assert has_nothing_left == (value == 1.0), "or there would be nothing to see"
    assert told[0][1:] == told[1][1:], "when it leaves, and what the worker is asked"
    assert told[0][0] == told[1][0]
    seen_by_both = str(told[0][0])
    for text in ("'may_exclude': True", "'may_exclude': False", "A choice costs everybody alike", "3 answers were"):
        assert text in seen_by_both
