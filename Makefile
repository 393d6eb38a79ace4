# The README's two commands. Each makes .venv on demand; nothing outside this folder changes
# (but for the download caches of pip and uv).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test torture lint docs lock clean

demo: $(VENV)/.ready
	@$(BIN)/bancache demo

test: $(VENV)/.ready
	@$(BIN)/python -m pytest -q

# Faults of every kind for about ten minutes; mounting and tracing need the right to.
torture: $(VENV)/.ready
	@$(BIN)/python -m benchmarks.torture

lint: $(VENV)/.ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# The pages on commands and Python are written anew from the code first.
docs: $(VENV)/.ready
	@$(BIN)/python -m tools.pages
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

# pip installs uv, pinned by hash; uv installs the rest several times faster than pip would.
# Hashes also make every machine take the index's own torch, which has a torchvision that imports
# beside it, rather than a wheel that happens to lie on the machine's disk.
$(VENV)/.ready: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned dependencies into $(VENV) (about 5.5 GB, 1 to 4 minutes, the first time only)" >&2
	@awk '/^uv==/ {on = 1} /^[a-z]/ && !/^uv==/ {on = 0} on && !/^ *#/' requirements.lock > $(VENV)/uv.lock.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock.txt
	@$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# Written without index addresses, so that it holds wherever a package index is configured.
lock: $(VENV)/.ready
	$(BIN)/uv pip compile pyproject.toml --group dev --generate-hashes --no-emit-index-url --no-header \
	  --universal --python-version 3.11 --upgrade -o requirements.lock

clean:
	rm -rf $(VENV) build dist site
