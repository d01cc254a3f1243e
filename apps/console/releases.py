"""Private answers in the console: who was given one, and what it guarantees. The answers themselves are not here."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from apps.accounts.models import User
from apps.budgets.models import Charge, Release
from apps.budgets.queries import releases_visible_to
from apps.budgets.states import State
from apps.compute.certificates import certificate, own_epsilon
from apps.console.base import GridAdmin, person
from apps.console.show import Panel, link, when
from apps.permissions.queries import datasets_visible_to

TONES = {State.CHARGED: "warning", State.ANSWERED: "info", State.DELIVERED: "success", State.VOID: "danger"}
# In a list; the page has the whole sentence.
SHORT = {State.CHARGED: "charged", State.ANSWERED: "answered", State.DELIVERED: "delivered", State.VOID: "void"}


@admin.register(Release)
class ReleaseAdmin(GridAdmin):
    paginator = InfinitePaginator
    plural = "Private answers"
    empty = "Each answer with noise that was charged to a budget appears here: to whom, at which price, and when."
    role = "node"
    list_filter = ["state"]
    search_fields = ["user__username", "program"]
    search_help_text = "Search by person or hash of the program"
    list_select_related = ["user"]
    ordering = ["-seq"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Release]:
        charges = Prefetch("charges", Charge.objects.select_related("pot__domain"))
        return releases_visible_to(person(request)).prefetch_related(charges)

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        return ["place", "who", _data_for(person(request)), "epsilon", "cost", "status", "charged"]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.certificate_view)
        return [
            *super().get_urls(),
            path("<path:object_id>/certificate/", view, name="budgets_release_certificate"),
        ]

    def certificate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """The certificate as JSON, as the REST interface gives it."""
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        return JsonResponse(certificate(self._visible(request, object_id), to=person(request)))

    def heading(self, user: User, obj: Release) -> str:
        return f"Private answer {obj.seq} for {obj.user.username}"

    def panels(self, user: User, obj: Release) -> list[Panel]:
        said = certificate(obj, to=user)
        visible = {each.slug: each for each in datasets_visible_to(user).filter(pk__in=_datasets(obj))}
        data = [
            f"{each['dataset']} (version {each['version']})"
            if each["dataset"] not in visible
            else link(user, visible[each["dataset"]], f"{each['dataset']} (version {each['version']})")
            for each in said["data"]
        ]
        json_page = reverse("admin:budgets_release_certificate", args=[obj.pk])
        answer = [
            ("To", link(user, obj.user)),
            ("Data", data),
            ("State", State(obj.state).label),
            ("Why it is void", obj.reason),
            ("Charged", obj.at),
            ("Program", obj.program),
        ]
        promise = [
            ("Whom it hides", f"each {said['unit']}: {said['adjacency']}"),
            ("Whom it may leave out", "whoever has nothing left of the budget, which nobody is told" * obj.may_exclude),
            ("Epsilon", f"{said['epsilon']:.4g}, of this answer by itself"),
            ("Delta", f"{said['delta']:.2g}"),
            ("How", said["mechanism_in_words"]),
            ("Numbers in each sum", ", ".join(map(str, said["sizes"]))),
            ("Clipped at", ", ".join(f"{each:.6g}" for each in said["clips"])),
            ("Noise (sigma)", ", ".join(f"{each:.6g}" for each in said["sigmas"])),
            ("As JSON", format_html('<a class="console-link" href="{}">the certificate</a>', json_page)),
        ]
        least, each = ("at most ", " for each person") if obj.record else ("", "")
        charges = [
            (
                f"{charge.pot.domain}, epoch {charge.pot.epoch}, {charge.pot.get_kind_display()}",
                f"{least}{charge.pot.as_epsilon(charge.amount):.4g} of {charge.pot.epsilon:g} epsilon{each} "
                f"({charge.amount} of {charge.pot.cap}, order {float(charge.pot.order):.4g})",
            )
            for charge in obj.charges.all()
        ]
        ledger = [
            ("Place", obj.seq),
            ("Hash", obj.hash),
            ("Hash before it", obj.previous),
            ("Event of the audit log", obj.event),
        ]
        return [
            Panel("The answer", answer),
            Panel("What it guarantees", promise),
            Panel("What it took", charges),
            Panel("In the ledger", ledger),
        ]

    @display(description="place", ordering="seq")
    def place(self, release: Release) -> str:
        return str(release.seq)

    @display(description="to", ordering="user__username")
    def who(self, release: Release) -> str:
        return release.user.username

    @display(description="epsilon")
    def epsilon(self, release: Release) -> str:
        delta = min(charge.pot.delta for charge in release.charges.all())
        return f"{own_epsilon(json.loads(release.question), delta):.3g}"

    @display(description="cost")
    def cost(self, release: Release) -> str:
        taken = [(charge.pot.as_epsilon(charge.amount), charge.pot) for charge in release.charges.all()]
        return ", ".join(f"{cost:.3g} of {pot.epsilon:g} ({pot.domain})" for cost, pot in taken)

    @display(description="state", ordering="state", label={SHORT[state]: tone for state, tone in TONES.items()})
    def status(self, release: Release) -> str:
        return SHORT[State(release.state)]

    @display(description="charged", ordering="at")
    def charged(self, release: Release) -> str:
        return when(release.at)


def _datasets(release: Release) -> list[str]:
    return [dataset for dataset, _ in json.loads(release.question)["versions"]]


def _data_for(user: User) -> Callable[[Release], str]:
    """The column of datasets, by the names that this reader may know; each is looked up once for a page."""
    known: dict[str, str] = {}

    @display(description="data")
    def data(release: Release) -> str:
        unknown = [key for key in _datasets(release) if key not in known]
        if unknown:
            known.update(dict.fromkeys(unknown, "one that is not for you"))
            named = datasets_visible_to(user).filter(pk__in=unknown).values_list("pk", "slug")
            known.update({str(key): slug for key, slug in named})
        return ", ".join(dict.fromkeys(known[key] for key in _datasets(release)))

    return data
