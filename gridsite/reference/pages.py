"""Every generated page of `docs/reference/`, as text by path."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

from django.conf import settings

from apps.datarequests import transitions
from gridclient.wire.errors import GridError
from gridsite import settings as declared
from gridsite.env import Variable
from gridsite.reference import operations, plans, vectors, wire

_NOTE = "<!-- Written by `make docs` from the code; edit that. -->\n\n"


def _default(variable: Variable) -> str:
    """Its default, without this machine's folders."""
    text = variable.default
    if variable.name != "GRID_DIR":
        text = text.replace(str(settings.GRID_DIR), "GRID_DIR")
    text = text.replace(f"{settings.BASE_DIR}/", "")
    return f"`{text}`" if text else ""


def settings_page() -> str:
    """Every environment variable."""
    lines = [
        "# Settings",
        "",
        "A deployment is configured by environment variables. Instead of `NAME`, `NAME_FILE` may name a file that",
        "holds the value. A value that makes no sense stops the start, with the reason, not repeating the value.",
        "",
        "| variable | value | default | meaning |",
        "|---|---|---|---|",
    ]
    for variable in declared.env.variables:
        kind = variable.kind.replace("|", "or")
        lines.append(f"| `{variable.name}` | {kind} | {_default(variable)} | {variable.help} |")
    return "\n".join(lines) + "\n"


def errors_page() -> str:
    """The tree of errors, with code and status."""
    lines = [
        "# Errors",
        "",
        "The same classes on both ends. `code` is stable; REST answers with `status`, and an error that ends a",
        "websocket session closes it with `close`. A body of REST is",
        '`{"error": {"code": ..., "message": ..., "details": {...}}}`. Messages and details hold public values only.',
        "",
        "| error | code | status | close | meaning |",
        "|---|---|---|---|---|",
    ]

    def walk(error: type[GridError], depth: int) -> None:
        own = inspect.cleandoc(error.__dict__.get("__doc__") or "").replace("\n", " ")
        indent = "&nbsp;" * 4 * depth
        lines.append(f"| {indent}`{error.__name__}` | `{error.code}` | {error.status} | {error.close or ''} | {own} |")
        for child in error.__subclasses__():
            if child.__module__ == GridError.__module__:
                walk(child, depth + 1)

    walk(GridError, 0)
    return "\n".join(lines) + "\n"


def states_page() -> str:
    """The life of a request."""
    return (
        "# States of a request\n\n"
        "One table of transitions (`apps/datarequests/transitions.py`) and one writer of the state.\n\n"
        f"```mermaid\n{transitions.diagram().strip()}\n```\n"
    )


def pages() -> dict[Path, str]:
    """Text of every generated file, by its path below `docs/reference/`."""
    written = {
        "settings.md": settings_page(),
        "errors.md": errors_page(),
        "operations.md": operations.page(),
        "request-states.md": states_page(),
        "plan-format.md": plans.page(),
        "wire/README.md": wire.page(),
    }
    generated = {Path(name): _NOTE + text for name, text in written.items()}
    generated[Path("wire/vectors.json")] = json.dumps(vectors.vectors(), indent=1) + "\n"
    generated[Path("plan-vectors.json")] = json.dumps(plans.vectors(), indent=1) + "\n"
    return generated
