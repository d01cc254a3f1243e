"""The ledger's guard in the database: rows are only added, a release moves forward, what was spent stays spent."""

from __future__ import annotations

from apps.core.triggers import Guard

_FIXED = ("seq", "hash", "digest", "paid", "previous", "key")
_BACK = (
    "OLD.state IN ('delivered', 'void') OR (OLD.state = 'answered' AND NEW.state <> 'delivered')"
    " OR NEW.attempt < OLD.attempt"
)
_RESET = (
    "NEW.spent < OLD.spent OR (OLD.spent > 0 AND (NEW.cap <> OLD.cap OR NEW.order_grid <> OLD.order_grid"
    " OR NEW.epsilon_nano <> OLD.epsilon_nano OR NEW.delta_atto <> OLD.delta_atto))"
)


def _guard(fixed: tuple[str, ...], reset: str, step: str) -> Guard:
    """`fixed`: columns of a release that stay; `reset`, `step`: which changes of a pot and of the head are refused."""
    rewritten = " OR ".join(f"NEW.{name} <> OLD.{name}" for name in fixed)
    rules = (
        ("ledger_release_no_delete", "budgets_release", "DELETE", ""),
        ("ledger_release_stays", "budgets_release", "UPDATE", rewritten),
        ("ledger_release_forward", "budgets_release", "UPDATE", _BACK),
        ("ledger_charge_no_update", "budgets_charge", "UPDATE", ""),
        ("ledger_charge_no_delete", "budgets_charge", "DELETE", ""),
        ("ledger_pot_no_delete", "budgets_pot", "DELETE", ""),
        ("ledger_pot_no_refund", "budgets_pot", "UPDATE", reset),
        ("ledger_allowance_no_delete", "budgets_allowance", "DELETE", ""),
        ("ledger_allowance_no_refund", "budgets_allowance", "UPDATE", "NEW.used < OLD.used"),
        ("ledger_head_no_delete", "budgets_ledgerhead", "DELETE", ""),
        ("ledger_head_steps", "budgets_ledgerhead", "UPDATE", step),
    )
    return Guard("budgets_refuse", "the ledger is append-only", rules)


FIRST = _guard(_FIXED, _RESET, "NEW.seq <> OLD.seq + 1")
"""Before entities had accounts of their own, and several charges were written together: for migrations."""
GUARD = _guard(
    (*_FIXED, "record", "may_exclude"),
    f"{_RESET} OR NEW.uniform < OLD.uniform OR (NEW.uniform IS NULL) <> (OLD.uniform IS NULL)",
    "NEW.seq <= OLD.seq",
)
