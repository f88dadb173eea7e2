# Two commands do everything on a machine with Python: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: demo service-demo test test-quick test-faults test-statistics test-all check docs clean

# A tuning run of the example repository on the Triton from PyPI: about three minutes, after the install.
demo: $(INSTALLED)
	$(BIN)/tritontune run examples/model_repository --slo p99=100ms --budget 3m

# The service with a job of the same repository, submitted over its API: about two minutes, and nothing stays behind.
service-demo: $(INSTALLED)
	$(BIN)/python examples/service_demo.py

# The default test suite: several tests at once; those that share a group, one after the other.
PARALLEL = -n 4 --dist loadgroup
# Matrices are small here: the threads of a library would only wait for each other, and take the cores of other tests.
test test-quick test-faults test-statistics: export OPENBLAS_NUM_THREADS = 1
# Each of many processes would compile all sources anew.
test test-quick test-faults test-statistics: export PYTHONDONTWRITEBYTECODE =
test: $(INSTALLED)
	$(BIN)/pytest $(PARALLEL)

# Unit tests, and those on the fake Triton but for whole runs and others that take seconds: for use after every change.
test-quick: export HYPOTHESIS_PROFILE = brief
test-quick: $(INSTALLED)
	$(BIN)/pytest $(PARALLEL) --ignore=tests/integration \
		-m 'not triton and not docker and not browser and not statistics and not faults and not slow'

# What counts over many seeds, and then what compares measurements of real launches: one of those that fails is tried
# once more, and the retry is reported.
test-statistics: export HYPOTHESIS_PROFILE = thorough
test-statistics: $(INSTALLED)
	$(BIN)/pytest $(PARALLEL) -m 'statistics and not triton and not faults'
	$(BIN)/pytest -raR -m 'statistics and triton' --reruns 1

# Whole runs whose processes are killed, stopped or interrupted, on this machine and on a Ray cluster. One that fails is
# tried again, and the retry is reported.
test-faults: $(INSTALLED)
	$(BIN)/pytest -raR $(PARALLEL) -m faults --reruns 2

# Everything.
test-all: test test-faults test-statistics

# What must be clean before a commit.
check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# The site of docs/, in build/site: a broken link is an error, and so is what a page would fetch from elsewhere.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict --quiet
	! grep --recursive --extended-regexp --include='*.html' '(src|<link[^>]*href)="https?:' build/site

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,service,cluster,dev,docs]'
	touch $@

clean:
	rm -rf $(VENV) build tritontune-runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
