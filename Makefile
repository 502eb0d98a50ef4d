# Two commands for a fresh clone: `make demo` and `make test`. The rest is for whoever works here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_ARGS ?=
LOCK = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
       --no-emit-index-url --no-emit-find-links --no-header --no-annotate

.PHONY: demo test check fmt bench lock clean

$(STAMP): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: $(STAMP)  ## simulator + daemon + verifying receiver on loopback, ends with a verdict
	@$(BIN)/houdini-relay demo $(DEMO_ARGS)

check: $(STAMP)  ## fast: lint, types, contracts, unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit tests/architecture

test: $(STAMP)  ## everything that CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## measurements, reported and never asserted
	$(BIN)/python -m bench

lock: $(STAMP)  ## pin every dependency again, with hashes
	$(LOCK) --all-extras -o constraints.txt
	$(LOCK) --extra postgres --extra otel -o constraints-run.txt
	$(subst pyproject.toml,requirements-build.in,$(LOCK)) -o constraints-build.txt

clean:
	rm -rf $(VENV) dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
