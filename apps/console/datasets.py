"""Datasets in the console: what they are and who may use them; never what they contain."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display
from unfold.paginator import InfinitePaginator
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from apps.accounts.models import User
from apps.budgets.pricing import pots_of
from apps.console.acts import Act
from apps.console.base import GridAdmin, person
from apps.console.budgets import left_words
from apps.console.filters import ByDataset
from apps.console.lists import IndexedAdmin
from apps.console.permissions import status_of
from apps.console.show import Panel, column, link, times, when
from apps.datasets.models import Dataset, DatasetVersion, Visibility
from apps.permissions.actions import describe
from apps.permissions.policies import can_grant
from apps.permissions.queries import datasets_visible_to, grants_visible_to

COMPUTING = {
    "yes": "whoever sees it builds programs and asks through the queue",
    "no": "only who has a grant for it",
}


class Describe(Act):
    label = "Change the description"
    note = "These words are public to those who may see the dataset. The values change by publishing a new version."
    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    description = forms.CharField(
        required=False, max_length=10_000, widget=UnfoldAdminTextareaWidget(attrs={"rows": 6})
    )
    tags = forms.CharField(required=False, widget=UnfoldAdminTextInputWidget, help_text="Separated by commas.")
    visibility = forms.ChoiceField(choices=Visibility.choices, widget=UnfoldAdminSelectWidget)
    # Not a box to tick: one that is missing from what was sent would mean "no".
    accounts_may_compute = forms.TypedChoiceField(
        label="Computing",
        choices=list(COMPUTING.items()),
        coerce=lambda chosen: chosen == "yes",
        widget=UnfoldAdminSelectWidget,
    )

    def __init__(self, *args: Any, obj: Dataset, **kwargs: Any) -> None:
        words = {
            "name": obj.name,
            "description": obj.description,
            "tags": ", ".join(obj.typed_tags),
            "visibility": obj.visibility,
            "accounts_may_compute": _computing(obj),
        }
        super().__init__(*args, obj=obj, initial=words, **kwargs)

    @classmethod
    def allowed(cls, user: User, obj: Dataset) -> bool:
        return can_grant(user, obj)

    def run(self) -> str:
        words: dict[str, Any] = {name: self.cleaned_data[name] for name in self.changed_data}
        if "tags" in words:
            words["tags"] = [tag.strip() for tag in words["tags"].split(",") if tag.strip()]
        if not words:
            return "Nothing was changed."
        describe(self.obj, by=self.user, **words)
        return f"Changed: {', '.join(str(self[name].label).lower() for name in words)}."


@admin.register(Dataset)
class DatasetAdmin(IndexedAdmin):
    indexed = "dataset"
    plural = "Datasets"
    empty = "Owners publish with the client: grid.private_tensor(...).send(node). What you may see then appears here."
    role = "node"
    acts = (Describe,)
    page_template = "console/dataset.html"
    list_display = ["name", "slug", "tag_names", "kind", "shape", "seen_by", "owner", "published"]
    list_filter = ["visibility"]
    list_select_related = ["ownership__owner"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dataset]:
        return datasets_visible_to(person(request))

    def panels(self, user: User, obj: Dataset) -> list[Panel]:
        version = obj.current
        sees_rules = can_grant(user, obj) or user.has("everything.read")
        return [
            Panel(
                "What it is",
                [
                    ("Name", obj.name),
                    ("In programs", obj.slug),
                    ("Description", obj.description),
                    ("Tags", self.tag_names(obj)),
                    ("Visibility", obj.get_visibility_display()),
                    ("Computing", COMPUTING[_computing(obj)] if sees_rules else None),
                    ("Owner", link(user, obj.ownership.owner)),
                    ("Published", obj.created),
                ],
            ),
            Panel("Privacy budget of its people", _budget(user, obj)),
            Panel(
                "What it declares",
                [
                    *declared(version),
                    (
                        "Versions",
                        [
                            link(user, each, f"{each.number}: {each.created:%Y-%m-%d %H:%M} UTC")
                            for each in obj.versions.all()
                        ],
                    ),
                ],
            ),
        ]

    def context(self, request: HttpRequest, user: User, obj: Dataset) -> dict[str, Any]:
        given = grants_visible_to(user).filter(dataset=obj).select_related("user", "team", "dataset")
        return {
            "dataset": obj,
            "mine": can_grant(user, obj),
            "sees_grants": can_grant(user, obj) or user.has("everything.read"),
            "grants": [grant for grant in given[:50] if status_of(grant) == "holds"],
        }

    @display(description="tags")
    def tag_names(self, dataset: Dataset) -> str:
        return " ".join(dataset.typed_tags)

    @display(description="visibility", ordering="visibility")
    def seen_by(self, dataset: Dataset) -> str:
        return dataset.visibility

    @display(description="kind")
    def kind(self, dataset: Dataset) -> str:
        return str(dataset.current.kind)

    @display(description="shape")
    def shape(self, dataset: Dataset) -> str:
        return times(dataset.current.shape)

    @display(description="owner", ordering="ownership__owner__username")
    def owner(self, dataset: Dataset) -> str:
        return str(dataset.ownership.owner.username)

    @display(description="published", ordering="created")
    def published(self, dataset: Dataset) -> str:
        return when(dataset.created)


@admin.register(DatasetVersion)
class DatasetVersionAdmin(GridAdmin):
    """Neither how many rows and people there really are nor digests: those may be private, these confirm guesses."""

    paginator = InfinitePaginator
    plural = "Dataset versions"
    empty = "A dataset that is published has version 1; publishing new values makes the next."
    role = "node"
    list_display = ["of", "number", "kind", "dtype", "public_shape", "published"]
    list_filter = [ByDataset]
    list_select_related = ["dataset"]
    ordering = ["-created", "-id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[DatasetVersion]:
        visible = datasets_visible_to(person(request)).values("pk")
        return DatasetVersion.objects.defer("row_count", "entity_count", "sha256").filter(dataset__in=visible)

    def heading(self, user: User, obj: DatasetVersion) -> str:
        return f"{obj.dataset.name}, version {obj.number}"

    def panels(self, user: User, obj: DatasetVersion) -> list[Panel]:
        facts = [
            ("Dataset", link(user, obj.dataset)),
            ("Number", obj.number),
            *declared(obj),
            ("Published", obj.created),
        ]
        return [Panel("Version", facts)]

    @display(description="dataset", ordering="dataset__slug")
    def of(self, version: DatasetVersion) -> str:
        return version.dataset.slug

    @display(description="shape")
    def public_shape(self, version: DatasetVersion) -> str:
        return times(version.shape)

    @display(description="published", ordering="created")
    def published(self, version: DatasetVersion) -> str:
        return when(version.created)


def declared(version: DatasetVersion) -> list[tuple[str, Any]]:
    """What is public about a version, as facts."""
    return [
        ("Kind", version.kind),
        ("Shape", times(version.shape)),
        ("Number of rows", "public" if version.rows_public else "private: the shape is padded"),
        ("Type", version.dtype),
        ("Columns", [column(each) for each in version.columns] or "not declared"),
        ("People", "one row each" if version.entities == "rows" else "declared, not shown"),
        ("Most rows of one person", version.max_rows_per_entity),
        ("Missing values", _missing(version.missing)),
    ]


def _budget(user: User, dataset: Dataset) -> list[tuple[str, Any]]:
    pot = pots_of([dataset.pk])[str(dataset.pk)]
    return [
        ("Domain", link(user, pot.domain)),
        ("Time block", pot.block),
        ("Frozen", pot.domain.frozen),
        ("Left for questions", f"{left_words(pot)} of epsilon {pot.epsilon:g}, all who ask together"),
    ]


def _computing(dataset: Dataset) -> str:
    return "yes" if dataset.accounts_may_compute else "no"


def _missing(rule: Any) -> Any:
    return rule if isinstance(rule, (str, dict)) else str(rule)
