"""Private data science from Python with plain PyTorch: `import gridclient as grid`.

Names are loaded when they are first used, so that a node, which needs the codec and the graph only, never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridclient import settings
    from gridclient.admin import AuditReport
    from gridclient.aggregates import aggregate
    from gridclient.calendar import date_of, days
    from gridclient.datasets import Dataset
    from gridclient.hook import TorchHook
    from gridclient.models import get, send
    from gridclient.network import GridNetwork, connect_network
    from gridclient.node import Node, connect
    from gridclient.plans import Plan, StoredPlan, plan
    from gridclient.private import Estimate, Receipt
    from gridclient.publish import PrivateTable, PrivateTensor, private_table, private_tensor
    from gridclient.recorder import Pointer
    from gridclient.requests import DataRequest
    from gridclient.tables import MockTable, TablePointer
    from gridclient.wire.errors import (
        AuthenticationError,
        BudgetExhaustedError,
        ConflictError,
        ConnectionLostError,
        DifferentNodesError,
        GetNotPermittedError,
        GridError,
        InternalError,
        InvalidInputError,
        LimitExceededError,
        NotFoundError,
        NotPermittedError,
        OperationNotAllowedError,
        PublishNotPermittedError,
        RemoteValueError,
        RequestDeniedError,
        RequestPendingError,
        SessionStoppedError,
        ShapeError,
        TooNoisyError,
        UnboundedError,
        VersionMismatchError,
    )

__version__ = "0.1.0"

_HOMES = {
    "node": ("Node", "connect"),
    "models": ("get", "send"),
    "hook": ("TorchHook",),
    "network": ("GridNetwork", "connect_network"),
    "datasets": ("Dataset",),
    "publish": ("PrivateTable", "PrivateTensor", "private_table", "private_tensor"),
    "private": ("Estimate", "Receipt"),
    "recorder": ("Pointer",),
    "tables": ("MockTable", "TablePointer"),
    "aggregates": ("aggregate",),
    "calendar": ("date_of", "days"),
    "plans": ("Plan", "StoredPlan", "plan"),
    "requests": ("DataRequest",),
    "admin": ("AuditReport",),
    "wire.errors": (
        "AuthenticationError",
        "BudgetExhaustedError",
        "ConflictError",
        "ConnectionLostError",
        "DifferentNodesError",
        "GetNotPermittedError",
        "GridError",
        "InternalError",
        "InvalidInputError",
        "LimitExceededError",
        "NotFoundError",
        "NotPermittedError",
        "OperationNotAllowedError",
        "PublishNotPermittedError",
        "RemoteValueError",
        "RequestDeniedError",
        "RequestPendingError",
        "SessionStoppedError",
        "ShapeError",
        "TooNoisyError",
        "UnboundedError",
        "VersionMismatchError",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AuditReport",
    "AuthenticationError",
    "BudgetExhaustedError",
    "ConflictError",
    "ConnectionLostError",
    "DataRequest",
    "Dataset",
    "DifferentNodesError",
    "Estimate",
    "GetNotPermittedError",
    "GridError",
    "GridNetwork",
    "InternalError",
    "InvalidInputError",
    "LimitExceededError",
    "MockTable",
    "Node",
    "NotFoundError",
    "NotPermittedError",
    "OperationNotAllowedError",
    "Plan",
    "Pointer",
    "PrivateTable",
    "PrivateTensor",
    "PublishNotPermittedError",
    "Receipt",
    "RemoteValueError",
    "RequestDeniedError",
    "RequestPendingError",
    "SessionStoppedError",
    "ShapeError",
    "StoredPlan",
    "TablePointer",
    "TooNoisyError",
    "TorchHook",
    "UnboundedError",
    "VersionMismatchError",
    "aggregate",
    "connect",
    "connect_network",
    "date_of",
    "days",
    "get",
    "plan",
    "private_table",
    "private_tensor",
    "send",
    "settings",
]


def __getattr__(name: str) -> Any:
    if name == "settings":
        return import_module("gridclient.settings")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'gridclient' has no attribute {name!r}")
    value = getattr(import_module(f"gridclient.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
