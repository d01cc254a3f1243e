"""What can be done on a page: each act is a form whose running is a domain verb. Nothing else in the console writes."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.accounts.models import User


class Act(forms.Form):
    """A verb on one object, or (`obj` None) one that makes an object.

    `allowed` asks whether this person ever may, `possible` whether it makes sense now: only then the page offers it.
    The verb checks both again.
    """

    label: ClassVar[str]
    note: ClassVar[str] = ""
    tone: ClassVar[str] = "plain"
    """How the button looks: plain, good or danger."""
    ends: ClassVar[bool] = False
    """Whether the object is gone afterwards, and its page with it."""

    def __init__(self, *args: Any, user: User, obj: Any = None, **kwargs: Any) -> None:
        self.user = user
        self.obj = obj
        kwargs["auto_id"] = f"{self.slug()}-%s"
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            if field.help_text:
                field.widget.attrs["aria-describedby"] = f"{self.slug()}-{name}_helptext"

    @classmethod
    def slug(cls) -> str:
        """Its name in addresses."""
        return cls.__name__.lower()

    @classmethod
    def allowed(cls, user: User, obj: Any) -> bool:
        raise NotImplementedError

    @classmethod
    def possible(cls, user: User, obj: Any) -> bool:
        return True

    @property
    def hurdles(self) -> bool:
        """Whether there is something to fill in or to read before the button."""
        return bool(self.fields or self.note)

    def run(self) -> Any:
        """Do it. Returns what to say, or what was made. Raises GridError."""
        raise NotImplementedError


def reason_field(help_text: str, *, required: bool = True) -> forms.CharField:
    """A text of several lines that somebody else will read."""
    return forms.CharField(
        label="Reason",
        required=required,
        max_length=2_000,
        help_text=help_text,
        error_messages={"required": "Write a reason."},
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
    )
