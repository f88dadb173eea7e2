# Two commands do everything on a machine with Python: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed

.PHONY: demo test check clean

# A tuning run of the example repository on the Triton from PyPI: about three minutes, after the install.
demo: $(INSTALLED)
	$(BIN)/tritontune run examples/model_repository --slo p99=100ms --budget 3m

# The whole test suite, against a real Triton.
test: $(INSTALLED)
	$(BIN)/pytest

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
