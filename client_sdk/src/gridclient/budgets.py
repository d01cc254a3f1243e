"""Privacy budgets: what there is, asking for some of it, and what private answers took. Mixed into nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gridclient.http import Http
from gridclient.listings import Listing
from gridclient.records import Budget, Domain, Record
from gridclient.requests import checked_reason


class BudgetRequest(Record):
    """Somebody asked for a budget: `id`, `state` (submitted, approved, denied or withdrawn, when last looked at),
    `dataset`, `requester`, `epsilon`, `reason`, `created`, `decided_by`, `decided_at`, `decision` (why), `grant` (its
    id) and `given` (its epsilon)."""

    shown = ("id", "state", "dataset", "requester", "epsilon", "given", "reason")

    def __init__(self, fields: Mapping[str, Any], http: Http) -> None:
        super().__init__(fields)
        self._http = http

    def refresh(self) -> BudgetRequest:
        """Look at it again."""
        self._fields = dict(self._http.get(f"budget-requests/{self.id}/"))
        return self

    def approve(self, reason: str, epsilon: float | None = None) -> BudgetRequest:
        """Give a `release` grant with the epsilon that was asked for, or a smaller one. For the dataset's owner."""
        return self._do("approve", reason=checked_reason(reason), epsilon=epsilon)

    def deny(self, reason: str) -> BudgetRequest:
        """Refuse. The requester reads the reason."""
        return self._do("deny", reason=checked_reason(reason))

    def withdraw(self) -> BudgetRequest:
        """Take it back, before the owner has decided."""
        return self._do("withdraw")

    def _do(self, verb: str, **body: Any) -> BudgetRequest:
        self._fields = dict(self._http.post(f"budget-requests/{self.id}/{verb}/", **body))
        return self


class Budgets:
    """What may still be learnt about the people of a node's datasets."""

    @property
    def http(self) -> Http:
        """The REST interface, signed in."""
        raise NotImplementedError

    def budget(self, dataset: str) -> Budget:
        """What is left for me of the epsilon that all private answers about a dataset's people may take."""
        return Budget(self.http.get(_budget(dataset)))

    def request_budget(self, dataset: str, *, epsilon: float, reason: str) -> BudgetRequest:
        """Ask the owner of a dataset for a `release` grant of so much. `.refresh().state` says what became of it.

        Raises NotFoundError, ConflictError where an earlier request of mine waits.
        """
        made = self.http.post(_budget(dataset), epsilon=epsilon, reason=checked_reason(reason))
        return BudgetRequest(made, http=self.http)

    def budget_requests(self, state: str | None = None) -> Listing[BudgetRequest]:
        """Who asked for which budget, oldest first: mine, and those on datasets of mine."""
        return BudgetRequest.listed(self.http.pages("budget-requests/", state=state), http=self.http)

    def open_domain(self, name: str, *, statement: str, entities: int = 100_000, accounting: str = "uniform") -> Domain:
        """Open a privacy domain: a population with a budget of its own. `statement`: why nobody in it is in another
        one, which the audit log keeps; `entities`: the most people there can be; `accounting`: "individual" charges
        each person what that person contributed, for good, and takes only datasets with `entities=`. Publish into it
        with `domain=name`."""
        made = {"slug": name, "statement": statement, "entities": entities, "accounting": accounting}
        return Domain(self.http.post("domains/", **made))

    def domains(self) -> Listing[Domain]:
        """The privacy domains of this node, with what is left of their budgets."""
        return Domain.listed(self.http.pages("domains/"))

    def certificate(self, release: str) -> dict[str, Any]:
        """What a private answer guarantees, and its place in the ledger, as plain JSON values."""
        found: dict[str, Any] = self.http.get(f"releases/{quote(release, safe='')}/")
        return found


def _budget(dataset: str) -> str:
    return f"datasets/{quote(dataset, safe='')}/budget/"
