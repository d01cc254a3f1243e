"""Privacy domains in the console: what their pots promise and what is left; new epochs take two people."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.accounts.models import User
from apps.budgets import actions as verbs
from apps.budgets.models import Domain, EpochProposal, Pot
from apps.budgets.policies import can_open_epochs
from apps.budgets.pots import ENTITIES, NANO
from apps.console.acts import Act, reason_field
from apps.console.base import GridAdmin
from apps.console.show import Panel, link
from apps.core import clock
from apps.permissions.policies import can_publish
from apps.permissions.queries import datasets_visible_to

MOST_DATASETS = 50
KINDS = {Pot.Kind.QUERIES: "Questions", Pot.Kind.TRAINING: "Training"}


class OpenDomain(Act):
    label = "Open a domain"
    note = (
        "A domain is a population with a budget of its own. Whoever is in two of them is promised the sum of both: "
        "open one only where you can say why its people are in no other."
    )
    name = forms.CharField(
        max_length=64,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="Small letters, digits and hyphens. Datasets are published into it by this name.",
    )
    statement = forms.CharField(
        label="Why nobody in it is in another domain",
        max_length=2_000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="Everybody who asks its data can read it, and the audit log keeps it.",
    )
    entities = forms.IntegerField(
        label="Most people",
        min_value=1,
        initial=ENTITIES,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric"}),
        help_text="The most there can ever be: delta is at most a tenth of its inverse.",
    )
    accounting = forms.ChoiceField(
        label="What an answer costs",
        choices=Domain.Accounting.choices,
        initial=Domain.Accounting.UNIFORM,
        widget=UnfoldAdminSelectWidget,
        help_text="For good. Individual needs identifiers of the people in all its datasets; who contributes little is "
        "then answered for longer, and who has nothing left is silently in no answer.",
    )

    @classmethod
    def allowed(cls, user: User, obj: Any) -> bool:
        return can_publish(user)

    def run(self) -> Domain:
        words = self.cleaned_data
        return verbs.open_domain(
            words["name"].strip(),
            statement=words["statement"],
            entities=words["entities"],
            accounting=words["accounting"],
            by=self.user,
        )


class _OfDomain(Act):
    @classmethod
    def allowed(cls, user: User, obj: Domain) -> bool:
        return can_open_epochs(user, obj)


class SetPot(_OfDomain):
    label = "Set a pot"
    note = "Possible as long as nothing was spent from it; afterwards what it promises stays."
    pot = forms.ModelChoiceField(Pot.objects.none(), empty_label=None, widget=UnfoldAdminSelectWidget)
    epsilon = forms.FloatField(
        min_value=0.001,
        max_value=100,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autocomplete": "off"}),
        help_text="What each person is promised, all answers together. 1 is strong, 2 usual, above 5 weak.",
    )
    year = forms.FloatField(
        label="Epsilon a year",
        required=False,
        min_value=0.001,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autocomplete": "off"}),
        help_text="The part of it that is released at once, and again each year. Empty: all of it at once.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field: Any = self.fields["pot"]
        field.queryset = _unspent(self.obj)
        field.label_from_instance = pot_name

    @classmethod
    def possible(cls, user: User, obj: Domain) -> bool:
        return _unspent(obj).exists()

    def run(self) -> str:
        words = self.cleaned_data
        year = None if words["year"] is None else round(words["year"] * NANO)
        pot = verbs.set_pot(words["pot"], epsilon_nano=round(words["epsilon"] * NANO), year_nano=year, by=self.user)
        return f"{pot_name(pot)}: epsilon {pot.epsilon:g}."


class ProposeEpoch(_OfDomain):
    label = "Propose a new epoch"
    note = (
        "A new epoch has full pots. What was answered stays answered: what each person was promised so far and what "
        "the new pots promise add up. Somebody else must confirm it."
    )
    tone = "danger"
    reason = reason_field("Who confirms it reads it, and the audit log keeps it.")
    entities = forms.IntegerField(
        label="Most people",
        required=False,
        min_value=1,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric"}),
        help_text="From then on. Empty: as now.",
    )

    @classmethod
    def possible(cls, user: User, obj: Domain) -> bool:
        return proposed(obj) is None

    def run(self) -> str:
        words = self.cleaned_data
        verbs.propose_epoch(self.obj, reason=words["reason"], entities=words["entities"], by=self.user)
        return "Proposed. Another owner of its data, or a reviewer, can confirm it here."


class ConfirmEpoch(_OfDomain):
    label = "Confirm the new epoch"
    note = "Its pots are full at once, and what each person was promised grows by as much. This cannot be taken back."
    tone = "danger"

    @classmethod
    def possible(cls, user: User, obj: Domain) -> bool:
        proposal = proposed(obj)
        return proposal is not None and can_open_epochs(user, obj, proposed_by=proposal.proposed_by)

    def run(self) -> str:
        proposal = proposed(self.obj)
        if proposal is None:
            return "No epoch is proposed any more."
        domain = verbs.confirm_epoch(proposal, by=self.user)
        return f"Epoch {domain.epoch} of {domain} is open."


@admin.register(Domain)
class DomainAdmin(GridAdmin):
    plural = "Privacy domains"
    empty = "Each population whose people are in no other one has a domain, with a budget of its own."
    role = "node"
    new = OpenDomain
    acts = (SetPot, ProposeEpoch, ConfirmEpoch)
    page_template = "console/domain.html"
    list_display = ["name", "status", "epsilon", "left", "epoch", "most"]
    search_fields = ["slug"]
    search_help_text = "Search by name"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Domain]:
        return Domain.objects.prefetch_related(Prefetch("pots", Pot.objects.select_related("domain")))

    def panels(self, user: User, obj: Domain) -> list[Panel]:
        datasets = datasets_visible_to(user).filter(placement__domain=obj)[:MOST_DATASETS]
        facts = [
            ("Name", obj.slug),
            ("Its people", obj.statement or "everybody whose owner named no other domain"),
            ("Most people", f"{obj.entities:,}"),
            ("Accounting", obj.get_accounting_display()),
            ("Epoch", obj.epoch),
            ("Opened", obj.created),
            ("Datasets", [link(user, each) for each in datasets]),
        ]
        earlier = [
            (
                f"Epoch {each.epoch}",
                [
                    each.reason,
                    f"Proposed by {each.proposed_by.username}, confirmed by {each.confirmed_by.username}, "
                    f"{each.confirmed_at:%Y-%m-%d %H:%M} UTC.",
                ],
            )
            for each in obj.proposals.select_related("proposed_by", "confirmed_by")
            if each.confirmed_by is not None and each.confirmed_at is not None
        ]
        return [Panel("Domain", facts), *([Panel("How its epochs were opened", earlier)] if earlier else [])]

    def context(self, request: HttpRequest, user: User, obj: Domain) -> dict[str, Any]:
        proposal = proposed(obj)
        return {
            "domain": obj,
            "pots": [bar(pot) for pot in _present(obj)],
            "proposal": proposal,
            "most": "" if proposal is None else f"{proposal.entities:,}",
            "mine": proposal is not None and proposal.proposed_by_id == user.pk,
        }

    @display(description="name", ordering="slug")
    def name(self, domain: Domain) -> str:
        return domain.slug

    @display(description="most people", ordering="entities")
    def most(self, domain: Domain) -> str:
        return f"{domain.entities:,}"

    @display(description="state", label={"open": "success", "frozen": "danger"})
    def status(self, domain: Domain) -> str:
        return "frozen" if domain.frozen else "open"

    @display(description="epsilon")
    def epsilon(self, domain: Domain) -> str:
        return f"{_questions(domain).epsilon:g}"

    @display(description="left for questions")
    def left(self, domain: Domain) -> str:
        return left_words(_questions(domain))


def proposed(domain: Domain) -> EpochProposal | None:
    """The epoch that waits for somebody to confirm it."""
    found = EpochProposal.objects.select_related("proposed_by")
    return found.filter(domain=domain, epoch=domain.epoch + 1, confirmed_by=None).first()


def pot_name(pot: Pot) -> str:
    """What people call a pot: "Questions", "Questions of 2026-11"."""
    return f"{KINDS[Pot.Kind(pot.kind)]} of {pot.block}" if pot.block else KINDS[Pot.Kind(pot.kind)]


def left_words(pot: Pot) -> str:
    """What can still be spent of a pot, as epsilon; rounded down, as little as is certain."""
    return _down(pot.as_epsilon(pot.left(clock.now())))


def bar(pot: Pot) -> dict[str, Any]:
    """A pot as its bar shows it. Widths are percents of the whole pot."""
    available = pot.available(clock.now())
    return {
        "name": pot_name(pot),
        "epsilon": f"{pot.epsilon:g}",
        "left": left_words(pot),
        "spent": _up(pot.as_epsilon(pot.spent)),
        "later": _down(pot.as_epsilon(pot.cap - available)) if available < pot.cap else "",
        "width": min(100.0, 100 * pot.spent / pot.cap),
        "delta": f"{pot.delta:.2g}",
        "order": f"{float(pot.order):.4g}",
        "certain": f"{pot.epsilon_spent:.3g}",
        "touched": pot.spent > 0,
        "individual": pot.uniform is not None,
    }


def _up(value: float) -> str:
    return f"{-(-value * 1000 // 1) / 1000:g}"


def _down(value: float) -> str:
    return f"{value * 1000 // 1 / 1000:g}"


def _present(domain: Domain) -> list[Pot]:
    return [pot for pot in domain.pots.all() if pot.epoch == domain.epoch]


def _questions(domain: Domain) -> Pot:
    return next(pot for pot in _present(domain) if pot.kind == Pot.Kind.QUERIES and not pot.block)


def _unspent(domain: Domain) -> QuerySet[Pot]:
    return Pot.objects.filter(domain=domain, epoch=domain.epoch, spent=0, charges=None)
