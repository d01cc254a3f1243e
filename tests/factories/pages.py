"""The console's pages as a test reads them."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.test import Client

from tests.factories.people import People


def page(item: Any) -> str:
    """Address of an object's pages."""
    return f"/admin/{item._meta.app_label}/{item._meta.model_name}/{item.pk}"


def text(answer: HttpResponse) -> str:
    return answer.content.decode()


def said(answer: HttpResponse) -> str:
    """What the next page says at its top."""
    context: Any = answer
    return " ".join(str(message) for message in context.context["messages"])


def signed_in(people: People, who: str) -> Client:
    """The console, signed in as one of them."""
    client = Client()
    client.force_login(getattr(people, who))
    return client
