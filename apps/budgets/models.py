"""Privacy domains, their pots, and the ledger of what was answered from them.

Amounts are Renyi divergences at the pot's order, in units of 2^-40 (see `accountant`).
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from fractions import Fraction

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from apps.budgets.accountant import ORDER_GRID, epsilon_of
from apps.budgets.chain import release_hash
from apps.budgets.pots import ATTO, DEFAULT, ENTITIES, NANO
from apps.budgets.states import State
from apps.core.clock import now
from apps.datasets.models import Dataset

YEAR = timedelta(days=365)
MAX_REASON = 2_000


class Domain(models.Model):
    """A population. Every dataset is of the default one unless its owner says that its people are others."""

    class Accounting(models.TextChoices):
        UNIFORM = "uniform", "uniform: an answer costs each person the most that it could cost one"
        INDIVIDUAL = "individual", "individual: an answer costs each person what that person contributed"

    slug = models.SlugField(max_length=64, unique=True)
    # Why nobody in it is in another domain; of the default one there is nothing to say.
    statement = models.TextField(max_length=MAX_REASON, blank=True)
    entities = models.PositiveBigIntegerField("most entities", default=ENTITIES)
    # How its pots of questions are charged; said when it was opened, and for good.
    accounting = models.CharField(max_length=10, choices=Accounting.choices, default=Accounting.UNIFORM)
    epoch = models.PositiveIntegerField(default=1)
    # Why nothing is answered from it until two people open another epoch; "" where it isn't frozen.
    frozen = models.CharField(max_length=300, blank=True, default="")
    created = models.DateTimeField(default=now, editable=False)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(condition=Q(entities__gte=1), name="domain_has_entities"),
            models.CheckConstraint(condition=Q(epoch__gte=1), name="domain_epochs_from_one"),
            models.CheckConstraint(condition=Q(slug=DEFAULT) | ~Q(statement=""), name="domain_has_statement"),
            models.CheckConstraint(
                condition=Q(accounting__in=["uniform", "individual"]), name="domain_accounting_known"
            ),
        ]

    def __str__(self) -> str:
        return self.slug


class Placement(models.Model):
    """Whose people a dataset has, and of which time. Written once: by its owner, or by the first release from it."""

    dataset = models.OneToOneField(Dataset, on_delete=models.CASCADE, related_name="placement")
    domain = models.ForeignKey(Domain, on_delete=models.PROTECT, related_name="placements")
    # The time block whose pots pay; "" where a domain has none.
    block = models.SlugField(max_length=64, blank=True, default="")

    def __str__(self) -> str:
        return f"{self.dataset} in {self.domain}"


class Pot(models.Model):
    """What may be learnt in one epoch about each entity of a domain. Immutable once something was spent."""

    class Kind(models.TextChoices):
        QUERIES = "queries", "queries"
        TRAINING = "training", "training"

    domain = models.ForeignKey(Domain, on_delete=models.PROTECT, related_name="pots")
    epoch = models.PositiveIntegerField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    block = models.SlugField(max_length=64, blank=True, default="")
    epsilon_nano = models.PositiveBigIntegerField()
    delta_atto = models.PositiveBigIntegerField()
    # The Renyi order, times 1024.
    order_grid = models.PositiveIntegerField()
    cap = models.PositiveBigIntegerField()
    # The sum of what each answer could cost an entity at most.
    spent = models.PositiveBigIntegerField(default=0)
    # Where each entity is charged what it contributed: what all were charged alike, a part of `spent`. None elsewhere.
    uniform = models.PositiveBigIntegerField(null=True, blank=True)
    # A lifetime cap that is released bit by bit: this much at once, and again each year. None: all of it at once.
    per_year = models.PositiveBigIntegerField(null=True, blank=True)
    opened = models.DateTimeField(default=now, editable=False)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["domain", "epoch", "kind", "block"], name="pot_once"),
            models.CheckConstraint(condition=Q(kind__in=["queries", "training"]), name="pot_kind_known"),
            models.CheckConstraint(
                condition=Q(uniform__isnull=True, spent__lte=F("cap"))
                | Q(uniform__isnull=False, uniform__lte=F("cap")),
                name="pot_not_overspent",
            ),
            models.CheckConstraint(condition=Q(order_grid__gt=ORDER_GRID), name="pot_order_above_one"),
            models.CheckConstraint(
                condition=Q(delta_atto__gte=1, delta_atto__lt=ATTO, epsilon_nano__gte=1), name="pot_promises_something"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.domain_id} in epoch {self.epoch}"

    @property
    def epsilon(self) -> float:
        """What each entity is promised, all answers together."""
        return self.epsilon_nano / NANO

    @property
    def delta(self) -> float:
        """With which delta."""
        return self.delta_atto / ATTO

    @property
    def order(self) -> Fraction:
        """The Renyi order."""
        return Fraction(self.order_grid, ORDER_GRID)

    def available(self, moment: datetime) -> int:
        """How much of the cap is released by then, spent or not."""
        if self.per_year is None:
            return self.cap
        return min(self.cap, self.per_year * (1 + max(0, (moment - self.opened) // YEAR)))

    def left(self, moment: datetime) -> int:
        """How much more fits: beyond, nothing is answered, or (individually) somebody may be left out."""
        return max(0, self.available(moment) - self.spent)

    def room(self, moment: datetime) -> int:
        """The most that one more answer may take, whoever is left out of it."""
        return self.left(moment) if self.uniform is None else self.available(moment)

    def as_epsilon(self, amount: int) -> float:
        """An amount as people are shown it: its share of the cap, in epsilon of the pot (half of 2.0 is 1.0)."""
        return amount * self.epsilon / self.cap

    @property
    def epsilon_spent(self) -> float:
        """The epsilon that holds for what was spent so far, rounded up."""
        return epsilon_of(min(self.spent, self.cap), self.order, Fraction(self.delta_atto, ATTO))


class Release(models.Model):
    """A row of the ledger: one private answer. `hash` covers what was asked, by whom and at which price."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    seq = models.PositiveBigIntegerField(unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="releases")
    key = models.CharField("idempotency key", max_length=64)
    program = models.CharField("hash of the program", max_length=64)
    # Canonical JSON as text: program, versions, mechanism, sizes, clips, sigmas, details. Its digest is its sha256.
    question = models.TextField()
    digest = models.CharField(max_length=64)
    # Canonical JSON as text: whose allowances paid; see `Allowance`.
    paid = models.TextField()
    at = models.DateTimeField()
    state = models.CharField(max_length=9, choices=State.choices, default=State.CHARGED)
    attempt = models.PositiveIntegerField(default=0)
    reason = models.CharField(max_length=300, blank=True, default="")
    data = models.BinaryField(null=True, blank=True)
    dtype = models.CharField(max_length=16, blank=True, default="")
    shape = models.JSONField(null=True, blank=True)
    # Individually: sha256 of what each entity was charged, in a file of the storage; "" elsewhere, and where it failed.
    record = models.CharField(max_length=64, blank=True, default="", editable=False)
    # Whoever has too little left is not in this answer. Public: it follows from the sums of worst cases.
    may_exclude = models.BooleanField(default=False, editable=False)
    # The number of the audit event that tells of it.
    event = models.PositiveBigIntegerField()
    previous = models.CharField(max_length=64)
    hash = models.CharField(max_length=64, unique=True)

    class Meta:
        ordering = ["-seq"]
        indexes = [
            models.Index(fields=["digest"], name="release_by_question", condition=Q(data__isnull=False)),
            models.Index(fields=["program"], name="release_void", condition=Q(state=State.VOID)),
            models.Index(fields=["seq"], name="release_unanswered", condition=Q(state=State.CHARGED)),
        ]
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="release_once"),
            models.UniqueConstraint(fields=["previous"], name="release_one_successor"),
            models.CheckConstraint(condition=Q(seq__gte=1), name="release_counts_from_one"),
            models.CheckConstraint(condition=Q(state__in=State.values), name="release_state_known"),
            models.CheckConstraint(
                condition=Q(state__in=[State.CHARGED, State.VOID], data__isnull=True, dtype="", shape__isnull=True)
                | (
                    Q(state__in=[State.ANSWERED, State.DELIVERED], data__isnull=False, shape__isnull=False)
                    & ~Q(dtype="")
                    & Q(attempt__gte=1)
                ),
                name="release_answered_with_answer",
            ),
            models.CheckConstraint(
                condition=(Q(state=State.VOID) & ~Q(reason="")) | (~Q(state=State.VOID) & Q(reason="")),
                name="release_void_with_reason",
            ),
        ]

    def __str__(self) -> str:
        return f"release {self.seq}"

    def computed_hash(self, charges: list[list[int]]) -> str:
        """What `hash` must be. `charges`: pot and amount of each, in the order of the pots."""
        return release_hash(
            self.seq, self.id, self.user_id, self.key, self.digest, charges, self.paid, self.at, self.previous,
            self.record, self.may_exclude,
        )  # fmt: skip


class Charge(models.Model):
    """What a release took from a pot."""

    release = models.ForeignKey(Release, on_delete=models.PROTECT, related_name="charges")
    pot = models.ForeignKey(Pot, on_delete=models.PROTECT, related_name="charges")
    amount = models.PositiveBigIntegerField()

    class Meta:
        ordering = ["pot_id"]
        constraints = [
            models.UniqueConstraint(fields=["release", "pot"], name="charge_once"),
            models.CheckConstraint(condition=Q(amount__gte=1), name="charge_something"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} of pot {self.pot_id}"


class Allowance(models.Model):
    """How much of a pot was used up on one allowance.

    `payer`: "grant:<id>", for good (`period` ""), or who has a part of the pot on each day in UTC, which is `period`
    then: "user:<id>", and "owner:<id>" for all answers about somebody's data.
    """

    pot = models.ForeignKey(Pot, on_delete=models.PROTECT, related_name="allowances")
    payer = models.CharField(max_length=64)
    period = models.CharField(max_length=10, blank=True)
    used = models.PositiveBigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pot", "payer", "period"], name="allowance_once")]

    def __str__(self) -> str:
        return f"{self.payer} {self.period}".rstrip()


class LedgerHead(models.Model):
    """The last release: one row, locked by whoever adds the next, so that the chain can't fork."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    seq = models.PositiveBigIntegerField()
    hash = models.CharField(max_length=64)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="ledger_one_head")]

    def __str__(self) -> str:
        return f"head at {self.seq}"


class EpochProposal(models.Model):
    """Somebody wants fresh pots for a domain; somebody else confirms it, or nobody does."""

    domain = models.ForeignKey(Domain, on_delete=models.PROTECT, related_name="proposals")
    epoch = models.PositiveIntegerField()
    entities = models.PositiveBigIntegerField()
    reason = models.TextField(max_length=MAX_REASON)
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    proposed_at = models.DateTimeField()
    confirmed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    confirmed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["domain", "epoch"], name="epoch_proposed_once"),
            models.CheckConstraint(condition=Q(entities__gte=1), name="epoch_has_entities"),
            models.CheckConstraint(condition=~Q(reason=""), name="epoch_has_reason"),
            models.CheckConstraint(
                condition=Q(confirmed_by__isnull=True, confirmed_at__isnull=True)
                | (Q(confirmed_by__isnull=False, confirmed_at__isnull=False) & ~Q(confirmed_by=F("proposed_by"))),
                name="epoch_confirmed_by_another",
            ),
        ]

    def __str__(self) -> str:
        return f"epoch {self.epoch} of {self.domain_id}"
