# Two commands for a fresh clone: `make demo` and `make test`. The rest is for whoever works here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_ARGS ?=
ROUNDS ?= 200
SECONDS ?= 600
EXAMPLES ?= 20000
MODULE ?=
PREFIX ?= /opt/houdini-relay
DESTDIR ?=
TOOLS := build/tools
INSTALLED = $(DESTDIR)$(PREFIX)
PAGES = $(DESTDIR)/usr/share/doc/houdini-relay
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check
# Hundreds of processes are started: without their bytecode each would compile everything anew.
export PYTHONDONTWRITEBYTECODE :=
PROVE = PYTHONPATH=tests:tests/e2e $(BIN)/python -m
LOCK = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
       --no-emit-index-url --no-emit-find-links --no-header --no-annotate

.PHONY: demo test machine check rules units fmt bench plot micro instructions fuzz mutants coverage crash chaos soak lock package install docs sbom audit clean

$(STAMP): constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' constraints.txt > $(VENV)/uv.txt
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r $(VENV)/uv.txt
# uv takes seconds where pip takes a minute, but knows nothing of pip's settings: where it finds no index, pip does.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r constraints.txt \
	  || $(BIN)/python $(PIP_INSTALL) --require-hashes -r constraints.txt
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	touch $(STAMP)

demo: $(STAMP)  ## simulator + daemon + verifying receiver on loopback, ends with a verdict
	@$(BIN)/houdini-relay demo $(DEMO_ARGS)

check: $(STAMP)  ## fast: lint, types, contracts and, beside them, unit tests
	@$(MAKE) --no-print-directory -j2 rules units

test: rules  ## everything but what needs a whole machine
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not machine"

rules: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

units: $(STAMP)
	$(BIN)/pytest -q --hypothesis-profile=quick tests/unit tests/architecture

machine: $(STAMP)  ## units under a real systemd, the container image, installing, receivers in every language
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m machine

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## measurements, reported and never asserted
	$(BIN)/python -m bench

plot: build/bench-tools/.installed  ## the picture in docs/benchmarks.md, of the last `make bench` or its case throughput
	build/bench-tools/bin/python bench/plot.py build/bench/throughput.json docs/benchmarks.png

micro: $(STAMP)  ## what every update passes through, function by function
	$(BIN)/pytest -q --benchmark-enable --benchmark-only --benchmark-columns=min,median,ops tests/micro

instructions: $(STAMP)  ## the same for three of them, counted by valgrind; keeps the counts in bench/instructions.json
	$(PROVE) bench.instructions

fuzz: $(STAMP)  ## every way in from outside, with made-up and damaged input, for SECONDS each
	$(PROVE) bench.fuzz --seconds $(SECONDS)

mutants: $(STAMP) build/mutants-tools/.installed  ## small changes to the pure core (or only to MODULE), and which no test notices
	$(PROVE) bench.mutants $(MODULE)

coverage: $(STAMP)  ## branches that the tests below the real process take: of everything, and of the pure core
	$(BIN)/pytest -q -n 2 --cov=relay --cov-branch --cov-report= \
	  tests/unit tests/contract tests/integration tests/fuzz tests/property/test_rank_rule.py
	$(BIN)/coverage report --skip-covered --sort=cover
	$(BIN)/coverage report --show-missing --include=$$($(PROVE) bench.mutants --paths)

crash: $(STAMP)  ## kill -9 under load, ROUNDS times, then nothing may be lost, doubled or out of order
	$(PROVE) bench.crash --rounds $(ROUNDS)

chaos: $(STAMP)  ## three instances on PostgreSQL, ROUNDS troubles at random, then nothing may be lost or out of order
	$(PROVE) bench.chaos --rounds $(if $(filter file,$(origin ROUNDS)),40,$(ROUNDS))

soak: $(STAMP)  ## 200 updates a second with every fault at random for SECONDS, then EXAMPLES property runs
	$(PROVE) bench.soak --seconds $(SECONDS)
	RELAY_PROFILE=relay-soak EXAMPLES=$(EXAMPLES) $(BIN)/pytest -q tests/property/test_store_machine.py tests/property/test_queue_machine.py
	WHOLE_EXAMPLES=$$(($(EXAMPLES) / 40 + 1)) ENGINE_EXAMPLES=$$(($(EXAMPLES) / 40 + 1)) \
	  $(BIN)/pytest -q tests/property/test_whole_way.py tests/property/test_engine.py

lock: $(STAMP)  ## pin every dependency again, with hashes
	$(LOCK) --all-extras -o constraints.txt
	$(LOCK) --extra postgres --extra otel -o constraints-run.txt
	$(foreach tool,build docs audit bench mutants,$(subst pyproject.toml,requirements-$(tool).in,$(LOCK)) -o constraints-$(tool).txt;)

$(TOOLS)/.installed: constraints-build.txt
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python $(PIP_INSTALL) --require-hashes -r constraints-build.txt
	touch $(TOOLS)/.installed

# Tools of their own, so that what runs and what is tested stay free of what they bring along.
build/%-tools/.installed: constraints-%.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python $(PIP_INSTALL) --require-hashes -r $<
	touch $@

docs: build/docs-tools/.installed  ## the documentation as a site in build/site; a dead link is an error
	NO_MKDOCS_2_WARNING=1 build/docs-tools/bin/mkdocs build --quiet

sbom: build/audit-tools/.installed  ## what runs, in CycloneDX's form, in build/sbom.cdx.json; the same pins give the same bytes
	build/audit-tools/bin/cyclonedx-py requirements --output-reproducible --of JSON -o build/sbom.cdx.json constraints-run.txt

audit: build/audit-tools/.installed  ## asks the advisory database about what runs; exit code 1 also when it cannot be asked
	build/audit-tools/bin/pip-audit --strict --require-hashes --disable-pip -r constraints-run.txt

package: $(TOOLS)/.installed  ## wheel and sdist in dist/; the same files always give the same bytes
	rm -rf dist
	$(TOOLS)/bin/python -m hatchling build

# The service's user must be able to read all of it, whatever the umask; bytecode is made now, since it may not write any.
install: package  ## as root: program, units, documentation (below DESTDIR, if given); configures and starts nothing
	umask 022 && $(PYTHON) -m venv $(INSTALLED)
	umask 022 && $(INSTALLED)/bin/python $(PIP_INSTALL) --no-compile --require-hashes -r constraints-run.txt
	umask 022 && $(INSTALLED)/bin/python $(PIP_INSTALL) --no-compile --no-deps --force-reinstall dist/*.whl
	umask 022 && $(INSTALLED)/bin/python -m compileall -q $(if $(DESTDIR),-f -s $(DESTDIR)) $(INSTALLED)/lib
	test -z '$(DESTDIR)' || grep -rlIZ --exclude-dir=lib '$(INSTALLED)' $(INSTALLED) | xargs -0r sed -i 's|$(INSTALLED)|$(PREFIX)|g'
	install -d $(DESTDIR)/etc/houdini-relay $(DESTDIR)/usr/local/bin
	ln -sfn $(PREFIX)/bin/houdini-relay $(DESTDIR)/usr/local/bin/houdini-relay
	install -D -m 0644 -t $(DESTDIR)/usr/local/lib/systemd/system systemd/*.service
	install -D -m 0644 -t $(PAGES) docs/*.md docs/*.png config.example.yaml CHANGELOG.md
	install -D -m 0644 -t $(PAGES)/monitoring docs/monitoring/*
	find examples \( -name node_modules -o -name __pycache__ \) -prune -o -type f -exec install -D -m 0644 {} $(PAGES)/{} \;
# There what lies beside docs/ in the source lies below it.
	sed -i 's|](\.\./|](|g' $(PAGES)/*.md
	find $(PAGES)/examples -name '*.md' -exec sed -i -E 's#\]\(((\.\./)+)docs/#](\1#g' {} +

clean:
	rm -rf $(VENV) dist build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
