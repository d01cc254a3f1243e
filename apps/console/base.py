"""What all pages of the console share: read-only unless a verb stands behind a button, and errors shown where they arise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib import messages
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from apps.accounts.models import User
from gridclient.wire.errors import GridError


def person(request: HttpRequest) -> User:
    """Who is signed in. The console's pages are for nobody else."""
    return cast(User, request.user)


def attempt(request: HttpRequest, verb: Callable[[], object], done: str) -> bool:
    """Run a domain verb for a button; say what happened at the top of the next page."""
    try:
        verb()
    except GridError as error:
        messages.error(request, error.message)
        return False
    messages.success(request, done)
    return True


class GridAdmin(ModelAdmin):
    """Nothing is added, changed or deleted here, unless a subclass offers a form whose saving is a domain verb."""

    list_per_page = 50
    # An exact count of a long table takes longer than the page.
    show_full_result_count = False
    list_fullwidth = True
    # Django's own log of changes would tell less than the audit log, and can be edited.
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> None:  # type: ignore[override]
        """The verb has written its own event."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> None:  # type: ignore[override]
        """The verb has written its own event."""
