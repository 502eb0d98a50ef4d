# Two commands for a fresh clone: `make demo` and `make test`. The rest is for whoever works here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_ARGS ?=
ROUNDS ?= 200
SECONDS ?= 600
EXAMPLES ?= 20000
PROVE = PYTHONPATH=tests:tests/e2e $(BIN)/python -m
LOCK = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
       --no-emit-index-url --no-emit-find-links --no-header --no-annotate

.PHONY: demo test check fmt bench crash soak lock clean

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
	$(BIN)/pytest -n 3 --dist loadfile

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## measurements, reported and never asserted
	$(BIN)/python -m bench

crash: $(STAMP)  ## kill -9 under load, ROUNDS times, then nothing may be lost, doubled or out of order
	$(PROVE) bench.crash --rounds $(ROUNDS)

soak: $(STAMP)  ## 200 updates a second with every fault at random for SECONDS, then EXAMPLES property runs
	$(PROVE) bench.soak --seconds $(SECONDS)
	RELAY_PROFILE=relay-soak EXAMPLES=$(EXAMPLES) $(BIN)/pytest -q tests/property/test_store_machine.py
	WHOLE_EXAMPLES=$$(($(EXAMPLES) / 40 + 1)) $(BIN)/pytest -q tests/property/test_whole_way.py

lock: $(STAMP)  ## pin every dependency again, with hashes
	$(LOCK) --all-extras -o constraints.txt
	$(LOCK) --extra postgres --extra otel -o constraints-run.txt
	$(subst pyproject.toml,requirements-build.in,$(LOCK)) -o constraints-build.txt

clean:
	rm -rf $(VENV) dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
