# Two commands do everything on a machine with Python: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: demo test test-quick test-all check clean

# A tuning run of the example repository on the Triton from PyPI: about three minutes, after the install.
demo: $(INSTALLED)
	$(BIN)/tritontune run examples/model_repository --slo p99=100ms --budget 3m

# The default test suite: several tests at once; those that share a group, one after the other.
PARALLEL = -n 4 --dist loadgroup
# Matrices are small here: the threads of a library would only wait for each other, and take the cores of other tests.
test test-quick test-all: export OPENBLAS_NUM_THREADS = 1
test: $(INSTALLED)
	$(BIN)/pytest $(PARALLEL)

# Only what needs no real Triton and no container: unit tests, and the fake Triton.
test-quick: $(INSTALLED)
	$(BIN)/pytest $(PARALLEL) -m 'not triton and not docker and not statistics'

# Everything: the default suite, and then what compares measurements. One of those that fails is tried once more, and reported.
test-all: export HYPOTHESIS_PROFILE = thorough
test-all: test
	$(BIN)/pytest -raR -m statistics --reruns 1

# What must be clean before a commit.
check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,dev]'
	touch $@

clean:
	rm -rf $(VENV) tritontune-runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
