# The five commands of the house. Each builds what it needs first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench storm mutants docs tutorial browser

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

help:
	@echo "make setup   build $(VENV)"
	@echo "make demo    a grid of five deployments with real data, and a walk through it (ARGS=--once ends after the walk)"
	@echo "make test    all tests (ARGS=... goes to pytest; PROCESSES=2 at once; DATABASE=postgres: on a real PostgreSQL and Redis, not SQLite)"
	@echo "make check   linters, types, layers, deployment checks, migrations and generated docs in sync"
	@echo "make docs    write the generated reference pages again"
	@echo "make tutorial  execute the tutorials again, each on a grid of its own (a minute)"
	@echo "make storm   people work with a node that is killed and cut, then the books are checked (RUNS=500)"
	@echo "make mutants wrong versions of what guards private data, each of which tests must notice (ONLY=text for some)"
	@echo "make bench   benchmark tables (ONLY=name for one)"

setup: $(STAMP)

# The stamp is written last: an interrupted build is taken up again.
$(STAMP): requirements.txt requirements-ray.txt requirements-dev.txt client_sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

demo: setup
	$(BIN)/python -m demo $(ARGS)

# The console is tested in a real browser; a machine without one gets it where that is allowed.
browser:
	@if command -v chromedriver >/dev/null && { command -v chromium || command -v google-chrome; } >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium chromium-driver >/dev/null; \
	else echo "Browser tests need chromium and chromedriver: please install both."; fi

DATABASE ?= sqlite
PROCESSES ?= 2

# A file's tests stay together: they share what was expensive to start.
test: setup browser
	DATABASE=$(DATABASE) $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

# What a production deployment sets, so that its checks can be run here. The key is as long as a real one and worth nothing.
PRODUCTION := GRID_ROLE=node GRID_NAME=check GRID_DIR=$(VENV)/check GRID_URL=https://node.example.org GRID_ALLOWED_HOSTS=node.example.org \
	GRID_DEVELOPMENT=false GRID_SECRET_KEY=checks-only-2b7e151628aed2a6abf7158809cf4f3c762e7160f38b4da5

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy apps gridsite client_sdk/src demo
	$(BIN)/lint-imports
	@mkdir -p $(VENV)/check
	$(PRODUCTION) $(BIN)/python manage.py check --deploy --fail-level WARNING
	$(PRODUCTION) $(BIN)/python manage.py makemigrations --check --dry-run
	$(PRODUCTION) $(BIN)/python manage.py makedocs --check

docs: setup
	$(PRODUCTION) $(BIN)/python manage.py makedocs

tutorial: setup
	$(BIN)/python -m docs.tutorial.build

bench: setup
	$(BIN)/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(ARGS)

RUNS ?= 500

storm: setup
	$(BIN)/python -m tests.faults.storm --runs $(RUNS)

mutants: setup
	$(BIN)/python -m tests.mutants $(if $(ONLY),--only "$(ONLY)")
