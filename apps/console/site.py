"""The console's site: the theme's, without what Django would do past the domain's verbs, and without its open doors."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, include, path, re_path
from unfold.sites import UnfoldAdminSite

from apps.console.acts import Act
from apps.console.base import person
from apps.console.password import ChangePassword
from gridclient.wire.errors import GridError


class ConsoleSite(UnfoldAdminSite):
    """Index, sign-in, one's own password, and the pages of the models; an unknown address asks to sign in first."""

    def get_urls(self) -> list[URLPattern | URLResolver]:
        models: list[URLPattern | URLResolver] = [
            path(f"{model._meta.app_label}/{model._meta.model_name}/", include(model_admin.urls))
            for model, model_admin in self._registry.items()
        ]
        return [
            path("", self.admin_view(self.index), name="index"),
            path("login/", self.login, name="login"),
            path("logout/", self.admin_view(self.logout), name="logout"),
            path("password_change/", self.admin_view(self.password_change), name="password_change"),
            path("jsi18n/", self.admin_view(self.i18n_javascript, cacheable=True), name="jsi18n"),
            *models,
            re_path(r"(?P<url>.*)$", self.admin_view(self.catch_all_view)),
        ]

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """None: the sidebar is `navigation.py`."""
        return []

    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """End the session and ask for the next sign-in."""
        if request.method != "POST":
            raise PermissionDenied
        super().logout(request, extra_context)
        return redirect("admin:login")

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """One's own password, through the verb that records it. This session goes on; all others end."""
        user = person(request)
        if not ChangePassword.allowed(user, user):
            raise PermissionDenied
        form: Act = ChangePassword(
            request.POST or None, user=user, obj=user, address=request.META.get("REMOTE_ADDR", "")
        )
        if request.method == "POST" and form.is_valid():
            try:
                messages.success(request, form.run())
                update_session_auth_hash(request, user)
                return redirect("admin:index")
            except GridError as error:
                form.add_error("old" if error.details.get("field") == "old_password" else None, error.message)
        context = {
            **self.each_context(request),
            "act": form,
            "title": form.label,
            "crumbs": [(form.label, "")],
            "back": "..",
        }
        return TemplateResponse(request, "console/new.html", context)
