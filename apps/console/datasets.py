"""Datasets in the console: what they are and who may use them; never what they contain."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.console.base import GridAdmin, attempt, person
from apps.datasets.models import Dataset
from apps.permissions.actions import describe
from apps.permissions.policies import can_grant
from apps.permissions.queries import datasets_visible_to


class DescribeForm(forms.ModelForm):
    """The public words of a dataset. Values change by publishing a new version."""

    tag_list = forms.CharField(
        label="tags", required=False, widget=UnfoldAdminTextInputWidget, help_text="Separated by commas."
    )

    class Meta:
        model = Dataset
        fields = ["name", "description", "visibility"]
        widgets = {
            "name": UnfoldAdminTextInputWidget,
            "description": UnfoldAdminTextareaWidget,
            "visibility": UnfoldAdminSelectWidget,
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and "tag_list" in self.fields:
            self.fields["tag_list"].initial = ", ".join(tag.text for tag in self.instance.tags.all())


@admin.register(Dataset)
class DatasetAdmin(GridAdmin):
    form = DescribeForm
    list_display = ["name", "slug", "tag_names", "kind", "shape", "visibility", "owner", "created"]
    list_filter = ["visibility"]
    search_fields = ["name", "slug", "description", "tags__text"]
    list_select_related = ["ownership__owner"]
    readonly_fields = ["slug", "owner", "created", "kind", "shape", "columns", "versions_list", "grants"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dataset]:
        return datasets_visible_to(person(request)).prefetch_related("tags", "versions")

    def get_fields(self, request: HttpRequest, obj: Dataset | None = None) -> list[str]:
        words = ["name", "description", "tag_list" if self._mine(request, obj) else "tag_names", "visibility"]
        return [*words, *self.get_readonly_fields(request, obj)]

    def get_readonly_fields(self, request: HttpRequest, obj: Dataset | None = None) -> list[str]:
        return self.readonly_fields if self._mine(request, obj) else [*self.readonly_fields, "tag_names"]

    def has_change_permission(self, request: HttpRequest, obj: Dataset | None = None) -> bool:
        return obj is not None and self._mine(request, obj)

    def _mine(self, request: HttpRequest, obj: Dataset | None) -> bool:
        return obj is not None and can_grant(person(request), obj)

    def save_model(self, request: HttpRequest, obj: Dataset, form: Any, change: bool) -> None:
        words = form.cleaned_data
        attempt(
            request,
            lambda: describe(
                Dataset.objects.get(pk=obj.pk),
                name=words["name"],
                description=words["description"],
                visibility=words["visibility"],
                tags=[tag.strip() for tag in words["tag_list"].split(",") if tag.strip()],
                by=person(request),
            ),
            "The new words are public to those who may see this dataset.",
        )

    @display(description="tags")
    def tag_names(self, dataset: Dataset) -> str:
        return ", ".join(tag.text for tag in dataset.tags.all())

    @display(description="kind")
    def kind(self, dataset: Dataset) -> str:
        return str(dataset.current.kind)

    @display(description="shape")
    def shape(self, dataset: Dataset) -> str:
        return " x ".join(str(extent) for extent in dataset.current.shape)

    @display(description="owner", ordering="ownership__owner__username")
    def owner(self, dataset: Dataset) -> str:
        return str(dataset.ownership.owner.username)

    @display(description="columns")
    def columns(self, dataset: Dataset) -> str:
        return "\n".join(_column(column) for column in dataset.current.columns) or "not declared"

    @display(description="versions")
    def versions_list(self, dataset: Dataset) -> str:
        return "\n".join(f"{version.number}: {version.created:%Y-%m-%d %H:%M}" for version in dataset.versions.all())

    @display(description="who may use it")
    def grants(self, dataset: Dataset) -> str:
        given = dataset.grants.filter(revoked_at=None).select_related("user", "team")
        return "\n".join(f"{grant.right}: {grant.user or grant.team}" for grant in given) or "nobody by a grant"


def _column(column: dict[str, Any]) -> str:
    text = f"{column['name']}: {column['kind']}"
    if column.get("low") is not None:
        text += f", {column['low']:g} to {column['high']:g}"
    if column.get("categories"):
        text += f", one of {', '.join(column['categories'])}"
    return text
