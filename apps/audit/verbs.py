"""What can be written in the audit log. The values are stored and signed: add freely, rename none."""

from __future__ import annotations

from enum import StrEnum


class Verb(StrEnum):
    SIGNED_IN = "signed_in"
    SIGN_IN_REFUSED = "sign_in_refused"
    USER_CREATED = "user_created"
    USER_DEACTIVATED = "user_deactivated"
    USER_REACTIVATED = "user_reactivated"
    ROLES_CHANGED = "roles_changed"
    PASSWORD_CHANGED = "password_changed"  # noqa: S105  (a verb, no secret)
    TEAM_CREATED = "team_created"
    TEAM_CHANGED = "team_changed"
    TOKEN_CREATED = "token_created"  # noqa: S105  (a verb, no secret)
    TOKEN_REVOKED = "token_revoked"  # noqa: S105  (a verb, no secret)
    DATASET_PUBLISHED = "dataset_published"
    DATASET_REPLACED = "dataset_replaced"
    DATASET_CHANGED = "dataset_changed"
    GRANT_GIVEN = "grant_given"
    GRANT_REVOKED = "grant_revoked"
    VALUE_RELEASED = "value_released"
    AGGREGATE_WITHHELD = "aggregate_withheld"
    REQUEST_SUBMITTED = "request_submitted"
    REQUEST_APPROVED = "request_approved"
    REQUEST_DENIED = "request_denied"
    REQUEST_WITHDRAWN = "request_withdrawn"
    REQUEST_ANSWERED = "request_answered"
    REQUEST_DELIVERED = "request_delivered"
    PLAN_SENT = "plan_sent"
    PLAN_REPLACED = "plan_replaced"
    PLAN_DOWNLOADED = "plan_downloaded"
    PLAN_DELETED = "plan_deleted"
    SESSION_CLOSED = "session_closed"
    SESSION_STOPPED = "session_stopped"
    NODE_JOINED = "node_joined"
    NODE_APPROVED = "node_approved"
    NODE_REJECTED = "node_rejected"
    NODE_REMOVED = "node_removed"
    NETWORK_PINNED = "network_pinned"
    NETWORK_KEY_CHANGED = "network_key_changed"
    BACKUP_MADE = "backup_made"
    BACKUP_RESTORED = "backup_restored"
    AUDIT_SET_BACK = "audit_set_back"
