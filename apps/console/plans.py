"""Plans that people keep on this node: to look at, and to delete."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from apps.accounts.models import User
from apps.console.acts import Act
from apps.console.base import GridAdmin, person
from apps.console.show import Panel, link, times, when
from apps.plans import actions as verbs
from apps.plans.models import Plan
from apps.plans.policies import can_delete, can_download
from apps.plans.queries import plans_visible_to


class Delete(Act):
    label = "Delete"
    note = "Nobody can call it any more, and its name is free. This cannot be taken back."
    tone = "danger"
    ends = True

    @classmethod
    def allowed(cls, user: User, obj: Plan) -> bool:
        return can_delete(user, obj)

    def run(self) -> str:
        verbs.delete(self.obj, by=self.user)
        return f"{self.obj} is deleted."


@admin.register(Plan)
class PlanAdmin(GridAdmin):
    plural = "Plans"
    empty = "A plan is a program with a name that scientists send here with the client: plan.send(node)."
    role = "node"
    acts = (Delete,)
    list_display = ["name", "owner", "takes", "gives", "nbytes", "allow_download", "sent"]
    list_filter = ["allow_download"]
    search_fields = ["name", "description", "owner__username"]
    search_help_text = "Search by name, description or owner"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        return plans_visible_to(person(request))

    def panels(self, user: User, obj: Plan) -> list[Panel]:
        facts = [
            ("Name", obj.name),
            ("Description", obj.description),
            ("Owner", link(user, obj.owner)),
            ("Others may copy it", obj.allow_download),
            ("Bytes", obj.nbytes),
            ("SHA-256", obj.sha256),
            ("Sent", obj.created),
        ]
        inside = [
            (name, f"{count} times" if count > 1 else "once") for name, count in obj.signature["operations"].items()
        ]
        panels = [
            Panel("What it is", facts),
            Panel("What a call gives it", [(given["name"], _spec(given)) for given in obj.signature["inputs"]]),
            Panel(
                "What it gives back",
                [(str(number), _spec(given)) for number, given in enumerate(obj.signature["results"], 1)],
            ),
        ]
        return [*panels, Panel("Operations in it", inside)] if can_download(user, obj) else panels

    @display(description="takes")
    def takes(self, plan: Plan) -> str:
        return ", ".join(given["name"] for given in plan.signature["inputs"])

    @display(description="gives")
    def gives(self, plan: Plan) -> str:
        count = len(plan.signature["results"])
        return "one value" if count == 1 else f"{count} values"

    @display(description="sent", ordering="created")
    def sent(self, plan: Plan) -> str:
        return when(plan.created)


def _spec(given: dict[str, Any]) -> str:
    return f"{times(given['shape'])} ({given['dtype']})"
