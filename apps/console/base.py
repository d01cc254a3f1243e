"""What all pages of the console share: a list, a page of facts about an object, and acts; no editing in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.admin import ShowFacets
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.admin import ModelAdmin

from apps.accounts.models import User
from apps.console.acts import Act
from apps.console.show import Panel, page_of
from gridclient.wire.errors import GridError, NotPermittedError


def person(request: HttpRequest) -> User:
    """Who is signed in. The console's pages are for nobody else."""
    return cast(User, request.user)


class GridAdmin(ModelAdmin):
    """A model in the console. Subclasses say who sees which rows, what a row's page tells, and which acts there are.

    Django's forms for changing and deleting have no address here: what changes the grid is an `Act`, sent by POST.
    """

    plural: ClassVar[str]
    """The list's title."""
    empty: ClassVar[str] = "Nothing is here yet."
    """What an empty list says: what appears here, and what to do next."""
    role: ClassVar[str | None] = None
    """The deployment role that has such objects; None: both."""
    acts: ClassVar[Sequence[type[Act]]] = ()
    new: ClassVar[type[Act] | None] = None
    page_template: ClassVar[str] = "console/detail.html"

    change_list_template = "console/list.html"
    list_per_page = 50
    # An exact count of a long table takes longer than the page.
    show_full_result_count = False
    list_fullwidth = True
    # A count beside every choice of a filter costs as much as the list.
    show_facets = ShowFacets.NEVER
    actions = None

    def panels(self, user: User, obj: Any) -> list[Panel]:
        """What an object's page tells this person."""
        raise NotImplementedError

    def heading(self, user: User, obj: Any) -> str:
        """The title of an object's page."""
        return str(obj)

    # --- who may open what ------------------------------------------------------------------------------------

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.role in (None, settings.GRID_ROLE) and super().has_view_permission(request, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.new is not None and self.new.allowed(person(request), None)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only what the filters offer: any other field in an address would answer questions about hidden columns."""
        allowed = set()
        for entry in self.get_list_filter(request):
            if not isinstance(entry, str):
                allowed.add(entry.parameter_name)
                continue
            allowed |= {f"{entry}__{end}" for end in ("exact", "gte", "lt", "isnull")}
            if (field := self.opts.get_field(entry)).is_relation:
                allowed.add(f"{entry}__{field.target_field.name}__exact")
        return lookup in allowed

    # --- addresses --------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        base = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        adding = [path("add/", view(self.add_view), name=f"{base}_add")] if self.new else []
        return [
            path("", view(self.changelist_view), name=f"{base}_changelist"),
            *adding,
            path("<path:object_id>/change/", view(self.change_view), name=f"{base}_change"),
            path("<path:object_id>/do/<slug:act>/", view(self.act_view), name=f"{base}_act"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        heading = {"title": self.plural, "crumbs": [(self.plural, "")], "new_label": self.new and self.new.label}
        return super().changelist_view(request, {**heading, **(extra_context or {})})

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if self.new is None or not self.has_add_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return self._render_new(request, self.new(user=person(request), initial=self.initial(request)))
        form = self.new(request.POST, user=person(request))
        if form.is_valid():
            try:
                return self.made(request, form.run())
            except GridError as error:
                form.add_error(None, error.message)
        return self._render_new(request, form)

    def initial(self, request: HttpRequest) -> dict[str, Any]:
        """What the form for a new object begins with."""
        return {}

    def made(self, request: HttpRequest, obj: Any) -> HttpResponse:
        """The answer once a new object was made."""
        messages.success(request, f"Done: {self.heading(person(request), obj)}.")
        return redirect(page_of(obj))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        return self._render(request, self._visible(request, object_id))

    def act_view(self, request: HttpRequest, object_id: str, act: str) -> HttpResponse:
        """Do something to an object. What isn't offered any more is refused with a look at how things stand now."""
        obj, user = self._visible(request, object_id), person(request)
        chosen = next((each for each in self.acts if each.slug() == act), None)
        if chosen is None:
            raise Http404
        if not chosen.allowed(user, obj):
            raise PermissionDenied
        if request.method != "POST":
            return redirect(page_of(obj))
        form = chosen(request.POST, user=user, obj=obj)
        if form.is_valid():
            try:
                messages.success(request, form.run())
                return redirect(self._list_url() if chosen.ends else page_of(obj))
            except NotPermittedError as error:
                raise PermissionDenied from error
            except GridError as error:
                form.add_error(None, error.message)
        obj = self._visible(request, object_id)
        if chosen.possible(user, obj):
            return self._render(request, obj, form)
        for problem in form.non_field_errors() or [f"“{chosen.label}” is no longer possible: this changed meanwhile."]:
            messages.error(request, str(problem))
        return redirect(page_of(obj))

    # --- pages ------------------------------------------------------------------------------------------------

    def context(self, request: HttpRequest, user: User, obj: Any) -> dict[str, Any]:
        """What a subclass's template needs beyond facts and acts."""
        return {}

    def _visible(self, request: HttpRequest, object_id: str) -> Any:
        """The object, if this person may see it: absent and hidden look alike."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            raise Http404
        return obj

    def _render(self, request: HttpRequest, obj: Any, tried: Act | None = None) -> HttpResponse:
        user = person(request)
        acts = [
            tried if tried is not None and isinstance(tried, act) else act(user=user, obj=obj)
            for act in self.acts
            if act.allowed(user, obj) and act.possible(user, obj)
        ]
        context = {
            "panels": self.panels(user, obj),
            "acts": [(act, self._act_url(obj, act)) for act in acts],
            "tried": tried,
            **self._frame(request, self.heading(user, obj)),
            **self.context(request, user, obj),
        }
        return TemplateResponse(request, self.page_template, context)

    def _render_new(self, request: HttpRequest, form: Act) -> HttpResponse:
        context = {"act": form, "back": self._list_url(), **self._frame(request, form.label)}
        return TemplateResponse(request, "console/new.html", context)

    def _frame(self, request: HttpRequest, heading: str) -> dict[str, Any]:
        crumbs = [(heading, "")]
        if self.has_view_permission(request):
            crumbs.insert(0, (self.plural, self._list_url()))
        return {**self.admin_site.each_context(request), "title": heading, "crumbs": crumbs}

    def _list_url(self) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")

    def _act_url(self, obj: Any, act: Act) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_act", args=[obj.pk, act.slug()])
