"""The ledger's guard in the database: rows are only added, a release moves forward, what was spent stays spent."""

from __future__ import annotations

from apps.core.triggers import Guard

_REWRITTEN = " OR ".join(f"NEW.{name} <> OLD.{name}" for name in ("seq", "hash", "digest", "paid", "previous", "key"))
_BACK = (
    "OLD.state IN ('delivered', 'void') OR (OLD.state = 'answered' AND NEW.state <> 'delivered')"
    " OR NEW.attempt < OLD.attempt"
)
_RESET = (
    "NEW.spent < OLD.spent OR (OLD.spent > 0 AND (NEW.cap <> OLD.cap OR NEW.order_grid <> OLD.order_grid"
    " OR NEW.epsilon_nano <> OLD.epsilon_nano OR NEW.delta_atto <> OLD.delta_atto))"
)
GUARD = Guard(
    "budgets_refuse",
    "the ledger is append-only",
    (
        ("ledger_release_no_delete", "budgets_release", "DELETE", ""),
        ("ledger_release_stays", "budgets_release", "UPDATE", _REWRITTEN),
        ("ledger_release_forward", "budgets_release", "UPDATE", _BACK),
        ("ledger_charge_no_update", "budgets_charge", "UPDATE", ""),
        ("ledger_charge_no_delete", "budgets_charge", "DELETE", ""),
        ("ledger_pot_no_delete", "budgets_pot", "DELETE", ""),
        ("ledger_pot_no_refund", "budgets_pot", "UPDATE", _RESET),
        ("ledger_allowance_no_delete", "budgets_allowance", "DELETE", ""),
        ("ledger_allowance_no_refund", "budgets_allowance", "UPDATE", "NEW.used < OLD.used"),
        ("ledger_head_no_delete", "budgets_ledgerhead", "DELETE", ""),
        ("ledger_head_steps", "budgets_ledgerhead", "UPDATE", "NEW.seq <> OLD.seq + 1"),
    ),
)
