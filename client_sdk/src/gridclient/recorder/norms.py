"""Batch normalisation, which writes its running statistics without saying so in its schema."""

from __future__ import annotations

from typing import Any

import torch

from gridclient.recorder.places import check_writable
from gridclient.recorder.rewrites import Rule
from gridclient.recorder.tape import Tape, Value, operation
from gridclient.wire.errors import OperationNotAllowedError

_TRAINING = "aten::_native_batch_norm_legit_functional"
_EVALUATION = "aten::_native_batch_norm_legit_no_training"


def _batch_norm(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """(input, weight, bias, running_mean, running_var, training, momentum, eps) to (output, mean, 1 / deviation)."""
    values, weight, bias, mean, var, training, momentum, eps = args
    if not training:
        return tape.apply(operation(_EVALUATION), (values, weight, bias, mean, var, momentum, eps), {})
    running = [check_writable(place, "aten::native_batch_norm") for place in (mean, var) if place is not None]
    if len(running) == 1:
        raise OperationNotAllowedError(
            "aten::native_batch_norm updates both running statistics or none.", operation="aten::native_batch_norm"
        )
    means, variances = running or _unused(tape, values)
    made = tape.apply(operation(_TRAINING), (values, weight, bias, means, variances, True, momentum, eps), {})
    for place, value in zip(running, made[3:], strict=False):
        place.write(value)
    return made[:3]


def _without_running(tape: Tape, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """(input, weight, bias, training, momentum, eps): normalised by its own statistics."""
    return _batch_norm(tape, [*args[:3], None, None, True, *args[4:]], kwargs)


def _unused(tape: Tape, values: Any) -> tuple[Value, Value]:
    """Running statistics for a layer that keeps none."""
    channels = values.spec.shape[1:2]
    return tape.filled(channels, 0.0, torch.float32), tape.filled(channels, 1.0, torch.float32)


RULES: dict[str, Rule] = {
    "aten::native_batch_norm": _batch_norm,
    "aten::_native_batch_norm_legit": _batch_norm,
    "aten::_native_batch_norm_legit.no_stats": _without_running,
}
