"""The console's sign-in: the same verb, lock-out and audit as everywhere else."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from apps.accounts.actions import sign_in
from apps.accounts.capabilities import CONSOLE_OPEN
from apps.accounts.models import User
from gridclient.wire.errors import AuthenticationError, LimitExceededError


class ConsoleBackend(BaseBackend):
    """Lets those in who have `console.open`."""

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        if not username or not password:
            return None
        address = request.META.get("REMOTE_ADDR", "") if request is not None else ""
        try:
            return sign_in(username=username, password=password, address=address, needs=CONSOLE_OPEN)
        except AuthenticationError:
            return None
        except LimitExceededError as error:
            # The login form shows this text; None would show "wrong password" to someone who types the right one.
            raise ValidationError(error.message, code=error.code) from None

    def get_user(self, user_id: Any) -> User | None:
        # Roles are read once for all questions of a request; the next request reads them anew.
        user = User.objects.filter(pk=user_id, is_active=True).prefetch_related("roles").first()
        return user if user is not None and user.has(CONSOLE_OPEN) else None
