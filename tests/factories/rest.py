"""Calls to the REST interface in somebody's name, without a server."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

from apps.accounts import actions
from apps.accounts.models import User


class Api:
    """`api("GET", "me/")` -> (status, decoded JSON or None). `user` None calls without a token.

    `key`: for the header `Idempotency-Key`.
    """

    def __init__(self, user: User | None) -> None:
        self.client = Client()
        self.text = ""
        if user is not None:
            self.text = actions.create_token(user=user, name="test", expires=None, by=user, kind="session")[1]

    def __call__(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.text}"} if self.text else {}
        if key is not None:
            headers["Idempotency-Key"] = key
        answer = self.client.generic(method, f"/api/{path}", data, content_type="application/json", headers=headers)
        return answer.status_code, answer.json() if answer.content else None


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    """Status and error code of an answer that should be an error."""
    return answer[0], answer[1]["error"]["code"]
