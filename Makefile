# The README's two commands are `demo` and `test`. Each creates .venv on demand; nothing outside this directory changes
# except the download caches of pip and uv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Each of the tests' processes imports torch, in half the time from bytecode; containers often forbid to keep that.
export PYTHONDONTWRITEBYTECODE :=

# `make lock UPGRADE=` adds what is missing and keeps all other versions.
UPGRADE ?= --upgrade

# Files begin in the order of tests/conftest.py, not those with most tests first.
SUITE := -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test coverage oldest torture lint docs lock clean

help: ## show this list (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.ready ## the born-again loop on scikit-learn's digits: teacher, caches, students, table, page
	@$(BIN)/bancache demo

test: $(VENV)/.ready ## all tests
	@$(BIN)/python $(COUNT) -m pytest $(SUITE)

# Under Python 3.11 this takes half as long again as the tests; a newer one counts almost for nothing.
coverage: COUNT := -m coverage run
coverage: test ## all tests, and the lines of bancache/ and cli/ that none of them runs
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered --sort=cover

# As a user has them whose other packages hold these back.
oldest: $(VENV)/.ready ## all tests with the oldest packages that pyproject.toml allows
	@$(BIN)/uv venv -q --clear --python $(BIN)/python $(VENV)/oldest
	@$(BIN)/uv pip compile -q --resolution lowest-direct --all-extras --group dev pyproject.toml -o $(VENV)/oldest.txt
	@$(BIN)/uv pip sync -q --python $(VENV)/oldest/bin/python $(VENV)/oldest.txt
	@PATH="$(CURDIR)/$(VENV)/oldest/bin:$$PATH" PYTHONPATH="$(CURDIR):$(CURDIR)/cli" python -m pytest $(SUITE)

# Mounting and tracing need privileges; without them those faults are left out.
torture: $(VENV)/.ready ## inject faults of every kind for fourteen minutes
	@$(BIN)/python -m benchmarks.torture

lint: $(VENV)/.ready ## ruff, mypy strict and the import contract
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# The generated pages are written from the code first.
docs: $(VENV)/.ready ## build the documentation as a site
	@$(BIN)/python -m tools.pages
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

# pip installs uv, pinned by hash; uv installs the rest several times faster than pip would.
# Hashes also make every machine use the index's torch, which matches its torchvision, and not another wheel that
# lies on the machine's disk.
$(VENV)/.ready: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned dependencies into $(VENV) (about 5.5 GB, 1 to 4 minutes, the first time only)" >&2
	@awk '/^uv==/ {on = 1} /^[a-z]/ && !/^uv==/ {on = 0} on && !/^ *#/' requirements.lock > $(VENV)/uv.lock.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock.txt
	@$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# Without index addresses, so that it works with any package index.
lock: $(VENV)/.ready ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --group dev --generate-hashes --no-emit-index-url --no-header \
	  --universal --python-version 3.11 $(UPGRADE) -o requirements.lock

clean: ## remove .venv, build, dist and site
	rm -rf $(VENV) build dist site
