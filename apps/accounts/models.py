"""Accounts, roles, teams, access tokens, the counters of the lock-out, and replies that are kept."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, NoReturn

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower
from django.utils.crypto import salted_hmac

from apps.accounts.capabilities import CONSOLE_OPEN, FEDERATED, console_actions
from apps.core import clock
from gridclient.wire.errors import ConflictError


class Role(models.Model):
    """A named set of capabilities. The table is data; what a capability means is in the rooms that ask for it."""

    name = models.CharField(max_length=32, primary_key=True)
    title = models.CharField(max_length=64)
    capabilities = models.JSONField(default=list)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.title


class KeptForEver(models.QuerySet[Any]):
    """Rows that other rows and the audit log speak of."""

    def delete(self) -> NoReturn:
        raise ConflictError("Accounts and tokens are never deleted: deactivate the account, or revoke the token.")


class UserManager(BaseUserManager["User"]):
    def get_queryset(self) -> models.QuerySet[User]:
        return KeptForEver(self.model, using=self._db)

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(username=(username or "").lower())


class User(AbstractBaseUser):
    """A person. The id is the identity; the username is unique, lower case, and never given to anyone else."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    username = models.CharField(max_length=150, unique=True)
    is_active = models.BooleanField("active", default=True)
    roles = models.ManyToManyField(Role, related_name="users", blank=True)
    # Who vouches for the account: the fingerprint of a network's key and the user's id there. Both empty: we do.
    federated_key = models.CharField(max_length=64, blank=True, default="")
    federated_id = models.CharField(max_length=64, blank=True, default="")
    created = models.DateTimeField(default=clock.now, editable=False)
    # Part of what a console session is bound to: raising it ends them all.
    session_epoch = models.PositiveIntegerField(default=0, editable=False)

    USERNAME_FIELD = "username"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects: ClassVar[UserManager] = UserManager()

    class Meta:
        ordering = ["username"]
        constraints = [
            models.UniqueConstraint(Lower("username"), name="user_name_unique_in_any_case"),
            models.UniqueConstraint(
                fields=["federated_key", "federated_id"], condition=~Q(federated_key=""), name="user_federated_once"
            ),
            # "@" says that somebody else vouches for the name: a local account can't claim it, a federated one must.
            models.CheckConstraint(
                condition=(Q(federated_key="", federated_id="") & ~Q(username__contains="@"))
                | (~Q(federated_key="") & ~Q(federated_id="") & Q(username__contains="@")),
                name="user_at_sign_means_federated",
            ),
        ]

    def __str__(self) -> str:
        return self.username

    @property
    def is_federated(self) -> bool:
        """Whether a network vouches for this account."""
        return self.federated_key != ""

    @property
    def capabilities(self) -> frozenset[str]:
        """What the account may do. Asks the database every time, unless `roles` was prefetched."""
        if not self.is_active:
            return frozenset()
        given = frozenset(capability for role in self.roles.all() for capability in role.capabilities)
        return given | FEDERATED if self.is_federated else given

    def has(self, capability: str) -> bool:
        """Whether the account may do this, now."""
        return capability in self.capabilities

    @property
    def is_staff(self) -> bool:
        """Whether the account may open the console (Django's name for it)."""
        return self.has(CONSOLE_OPEN)

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Django's question: `"app.action_model"`."""
        label, _, codename = perm.partition(".")
        action, _, model = codename.partition("_")
        return self.is_staff and action in console_actions(self.capabilities, label, model)

    def has_perms(self, perm_list: list[str], obj: object = None) -> bool:
        return all(self.has_perm(perm, obj) for perm in perm_list)

    def has_module_perms(self, app_label: str) -> bool:
        return self.is_staff and bool(console_actions(self.capabilities, app_label))

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ConflictError("An account is never deleted, so that its name can't be taken over: deactivate it.")

    def _get_session_auth_hash(self, secret: str | None = None) -> str:
        bound = f"{self.password}:{self.session_epoch}"
        return salted_hmac("apps.accounts.session", bound, secret=secret, algorithm="sha256").hexdigest()


class Team(models.Model):
    """Accounts that are given rights together."""

    slug = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=150)
    members = models.ManyToManyField(User, related_name="teams", blank=True)
    created = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name


class AccessToken(models.Model):
    """A secret that stands for a user. Only its digest is stored; the row stays after the token was revoked."""

    class Kind(models.TextChoices):
        TOKEN = "token", "access token"
        SESSION = "session", "sign-in"

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="tokens")
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.TOKEN)
    prefix = models.CharField(max_length=8, unique=True)
    digest = models.CharField(max_length=64)
    # Null: for all that the account may do.
    scopes = models.JSONField(null=True, blank=True)
    created = models.DateTimeField(default=clock.now, editable=False)
    expires = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used = models.DateTimeField(null=True, blank=True)

    objects = KeptForEver.as_manager()

    class Meta:
        ordering = ["-created"]
        indexes = [models.Index(fields=["user", "-created"], name="token_user")]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=["token", "session"]), name="token_kind_known"),
            models.CheckConstraint(condition=Q(expires__gt=F("created")), name="token_expires_after_made"),
        ]

    def __str__(self) -> str:
        return f"grd_{self.prefix}_…"

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ConflictError("A token is never deleted: revoke it.")


class LockOut(models.Model):
    """Failed sign-ins of a username or an address since `since`. `key` is an HMAC: people type passwords as names."""

    key = models.CharField(max_length=64, primary_key=True)
    failures = models.PositiveIntegerField(default=0)
    since = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.failures} since {self.since:%H:%M}"


class KeptReply(models.Model):
    """What was replied to an ask under a key, for whoever asks again. `digest` is of what was asked."""

    # Without a constraint in the database: to look at it, PostgreSQL would lock the user's row at the commit, after
    # all others, where most verbs lock it first. Accounts are never deleted.
    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_constraint=False)
    key = models.CharField(max_length=64)
    digest = models.CharField(max_length=64)
    # JSON. Empty only within the transaction that does what was asked.
    reply = models.TextField(default="")
    kept = models.DateTimeField(default=clock.now, db_index=True)

    class Meta:
        verbose_name_plural = "kept replies"
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="reply_kept_once")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.key}"
