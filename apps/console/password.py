"""One's own password."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminPasswordWidget

from apps.accounts import actions as verbs
from apps.accounts.models import User
from apps.console.acts import Act

RULES = "At least 8 characters, and not a common one."


def new_password_field(label: str = "New password") -> forms.CharField:
    """A password to be set; browsers offer to make one."""
    return forms.CharField(
        label=label,
        strip=False,
        help_text=RULES,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )


class TwicePassword(Act):
    """A new password, typed twice."""

    password = new_password_field()
    again = forms.CharField(
        label="New password, again",
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not self.errors and cleaned["password"] != cleaned["again"]:
            self.add_error("again", "The two are not the same.")
        return cleaned


class ChangePassword(TwicePassword):
    """The person who sits there proves it with the old password."""

    label = "Change password"
    note = "Every other sign-in of this account ends. Access tokens go on."
    old = forms.CharField(
        label="Present password",
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "current-password"}),
    )
    field_order = ["old", "password", "again"]

    @classmethod
    def allowed(cls, user: User, obj: Any) -> bool:
        return not user.is_federated

    def __init__(self, *args: Any, address: str, **kwargs: Any) -> None:
        self.address = address
        super().__init__(*args, **kwargs)

    def run(self) -> str:
        words = self.cleaned_data
        verbs.change_password(self.user, old=words["old"], password=words["password"], address=self.address)
        return "The new password holds. Every other sign-in of this account has ended."
