"""How a deployment is put together, from environment variables (docs/reference/settings.md is generated from here)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gridsite.env import Env

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env()
# Seconds: whoever waits for a Redis that hangs, waits no longer.
REDIS_PATIENCE = {"socket_connect_timeout": 1.0, "socket_timeout": 2.0}

# --- what this deployment is ------------------------------------------------------------------------------------
GRID_ROLE = env.str("GRID_ROLE", "node", choices=("node", "network"), help="What this deployment is.")
GRID_NAME = env.str("GRID_NAME", "node", help="Its name: the node id asked for at the network, shown to users.")
GRID_DIR = env.path("GRID_DIR", BASE_DIR / "var", help="Where the embedded database, storage and keys are kept.")
GRID_KEYS_DIR = env.path(
    "GRID_KEYS_DIR", GRID_DIR / "keys", help="The signing key, the entity key and the audit head: outside the database."
)
GRID_STORAGE_DIR = env.path("GRID_STORAGE_DIR", GRID_DIR / "storage", help="Files of published values.")
GRID_URL = env.url("GRID_URL", "http://127.0.0.1:8000", help="Where users reach this deployment.")
GRID_NETWORK_URL = env.url("GRID_NETWORK_URL", help="A node's network; empty: the node belongs to none.")
GRID_GUEST_SEARCH = env.bool("GRID_GUEST_SEARCH", False, help="May people without an account search this network?")
GRID_OUTBOUND_ALLOW = env.list(
    "GRID_OUTBOUND_ALLOW", help="host:port pairs that outbound calls may reach although they are loopback or private."
)
GRID_DEVELOPMENT = env.bool(
    "GRID_DEVELOPMENT", False, help="Plain http, cookies without the secure flag. Never in production."
)

# --- operation --------------------------------------------------------------------------------------------------
GRID_PROXIES = env.list(
    "GRID_PROXIES",
    ("127.0.0.1",),
    help="Addresses and networks of the proxies in front, whose word about a client's address is taken.",
)
GRID_METRICS_TOKEN = env.str(
    "GRID_METRICS_TOKEN", help="What a scraper of /metrics says as its bearer token; empty: there is no such page."
)
GRID_LOG = env.str("GRID_LOG", "plain", choices=("plain", "json"), help="Lines for people, or JSON for a collector.")
GRID_DISK_FLOOR = env.int(
    "GRID_DISK_FLOOR", 2**28, help="Free bytes of the disks below which the deployment is not ready."
)
GRID_WORKERS = env.str(
    "GRID_WORKERS",
    "forkserver",
    choices=("forkserver", "ray"),
    help="Where sessions are computed: on this machine, or on those of a Ray cluster "
    "(docs/how-to/past-one-machine.md).",
)
GRID_RAY_ADDRESS = env.address("GRID_RAY_ADDRESS", help="The Ray cluster's head, for example `10.0.0.5:6379`.")

# --- limits -----------------------------------------------------------------------------------------------------
GRID_MAX_UPLOAD = env.int(
    "GRID_MAX_UPLOAD", 4 * 2**30, low=1, help="Most bytes of a session's uploads, and of its answers under way."
)
GRID_MAX_VALUE = env.int("GRID_MAX_VALUE", 2**30, low=1, help="Most bytes of one computed value.")
GRID_SESSION_MEMORY = env.int(
    "GRID_SESSION_MEMORY", 4 * 2**30, low=2**28, help="Most bytes of memory of a session's worker."
)
GRID_MAX_FLOPS = env.int(
    "GRID_MAX_FLOPS", 10**13, low=1, help="Most floating point operations that one `get` may need."
)
GRID_DEADLINE = env.int("GRID_DEADLINE", 60, low=1, high=86_400, help="Most seconds of one `get`.")
GRID_MAX_SESSIONS = env.int("GRID_MAX_SESSIONS", 64, low=1, help="Most sessions at a time.")
GRID_MAX_SESSIONS_OF_ACCOUNT = env.int(
    "GRID_MAX_SESSIONS_OF_ACCOUNT", 16, low=1, help="Most sessions of one account at a time."
)
GRID_ACCOUNT_RATE = env.int(
    "GRID_ACCOUNT_RATE",
    10_000,
    low=10,
    help="Frames a second that one account may send, over all of its sessions; faster ones are read later.",
)
GRID_MAX_REQUEST_BYTES = env.int(
    "GRID_MAX_REQUEST_BYTES",
    2**28,
    low=1,
    help="Most bytes of programs and constants that one account's open requests may hold.",
)
GRID_MAX_ANSWER_BYTES = env.int(
    "GRID_MAX_ANSWER_BYTES",
    2**28,
    low=1,
    help="Most bytes that one account's private answers may take in the ledger, which keeps them for good.",
)
GRID_K = env.int(
    "GRID_K", 10, low=2, help="Least number of entities behind each number of an exact aggregate, and between two."
)
GRID_P_PERCENT = env.int(
    "GRID_P_PERCENT",
    10,
    high=100,
    help="Of what the largest contributor brings to an exact sum, at least so many percent come from all but the two "
    "largest.",
)
GRID_DOMINANCE = env.int(
    "GRID_DOMINANCE", 90, low=1, high=100, help="The two largest contributors bring less percent of an exact sum."
)
GRID_FREEDOM = env.int("GRID_FREEDOM", 10, low=1, help="Least degrees of freedom of an exact variance or product.")

# --- Django -----------------------------------------------------------------------------------------------------
# Empty without the variable: Django then refuses at the first use, so no deployment can run on a default.
SECRET_KEY = env.str("GRID_SECRET_KEY", help="Signs the console's sessions. At least 50 random characters; no default.")
DEBUG = False
ALLOWED_HOSTS = env.list(
    "GRID_ALLOWED_HOSTS", ("127.0.0.1", "localhost"), help="Host names that this deployment answers to."
)
INSTALLED_APPS = [
    # The theme's templates and widgets; the site itself is ours.
    "unfold.apps.BasicAppConfig",
    "apps.console.apps.ConsoleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "apps.audit",
    "apps.accounts",
    "apps.tags",
    "apps.datasets",
    "apps.permissions",
    "apps.budgets",
    "apps.network",
    "apps.plans",
    "apps.compute",
    "apps.datarequests",
    "apps.console.apps.ConsoleConfig",
    "gridsite",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "gridsite.middleware.SecurityHeadersMiddleware",
]
ROOT_URLCONF = "gridsite.urls"
ASGI_APPLICATION = "gridsite.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
DATABASES = {
    "default": env.database(
        "GRID_DATABASE_URL",
        {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": GRID_DIR / "db.sqlite3",
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                # FULL: what was acknowledged must survive a power cut.
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
            "TEST": {"NAME": GRID_DIR / "test.sqlite3"},
        },
        help="PostgreSQL, for example `postgres://grid:...@db/grid?sslmode=require`; unset: SQLite in GRID_DIR.",
    )
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
GRID_REDIS_URL = env.redis(
    "GRID_REDIS_URL",
    help="Redis, for a deployment of several processes: signals between them, and how often strangers asked. "
    "Nothing is kept there. Unset: one process.",
)
# Deployments that share a Redis must not hear each other.
_REDIS_PREFIX = f"gridsite:{GRID_ROLE}:{GRID_NAME}"
# Signals only, never values: one that is dropped costs a pause, because every listener also looks by itself.
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [{"address": GRID_REDIS_URL, **REDIS_PATIENCE}], "prefix": _REDIS_PREFIX},
    }
    if GRID_REDIS_URL
    else {"BACKEND": "channels.layers.InMemoryChannelLayer"}
}
# `process` is what a process counts by itself while Redis is away.
CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": GRID_REDIS_URL,
        "KEY_PREFIX": _REDIS_PREFIX,
        "OPTIONS": REDIS_PATIENCE,
    }
    if GRID_REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "process": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "process"},
}

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["apps.accounts.backends.ConsoleBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
LOGIN_URL = "admin:login"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["apps.api.authentication.TokenAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": [
        "rest_framework.permissions.IsAuthenticated",
        "apps.api.authentication.InScope",
    ],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "apps.api.errors.handle",
    "UNAUTHENTICATED_USER": None,
}

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = not GRID_DEVELOPMENT
SESSION_COOKIE_HTTPONLY = True
# Cookies ignore the port: each deployment on a host needs a name of its own.
SESSION_COOKIE_NAME = f"gridsite_{GRID_ROLE}_{''.join(c if c.isalnum() else '_' for c in GRID_NAME)}"
CSRF_COOKIE_NAME = f"{SESSION_COOKIE_NAME}_csrf"
SECURE_HSTS_SECONDS = 0 if GRID_DEVELOPMENT else 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
CSRF_TRUSTED_ORIGINS = [GRID_URL]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 2**20

UNFOLD = {
    "SITE_TITLE": f"{GRID_NAME} · Gridsite",
    "SITE_HEADER": GRID_NAME,
    "SITE_SUBHEADER": "Gridsite network" if GRID_ROLE == "network" else "Gridsite node",
    "SITE_SYMBOL": "hub" if GRID_ROLE == "network" else "database",
    "SITE_URL": None,
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": f"{STATIC_URL}console/favicon.svg"}],
    "STYLES": [f"{STATIC_URL}console/console.css"],
    "SHOW_HISTORY": False,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "apps.console.home.dashboard",
    "SIDEBAR": {"show_search": False, "navigation": "apps.console.navigation.sidebar"},
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "plain": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"},
        "json": {"()": "apps.core.logs.JsonFormatter"},
    },
    "filters": {"secrets": {"()": "apps.core.logs.SecretFilter"}, "once": {"()": "apps.core.logs.OnceAMinute"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": GRID_LOG, "filters": ["secrets"]},
        "recent": {"class": "apps.core.recent.RecentErrors"},
    },
    "root": {"handlers": ["console", "recent"], "level": "INFO"},
    # A line for each outbound call, each refusal and each socket would hide what matters; `apps.wire` says whose
    # session begins and ends.
    "loggers": {
        "httpx": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
        # A traceback, and what a stranger wrote, for every call to another name.
        "django.security.DisallowedHost": {"level": "CRITICAL"},
        "uvicorn.error": {"level": "WARNING"},
        # Each second with a traceback, as long as Redis is away.
        "channels_redis.pubsub": {"filters": ["once"]},
    },
}
