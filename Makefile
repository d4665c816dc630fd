# make train: environment, pinned install, then the main job on the embedded synthetic set.
# make quick: the same set-up, then ruff, mypy, the layers and the fast tests. For every change.
# make docs: the set-up, then the site into docs/_build/html, with its lessons run.
# make lock: requirements.lock anew from constraints.txt, with the hashes that the package index gives.
# make test: as make quick, with every test. All need Python 3.11 to 3.13 and make, nothing else.
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3,$(shell $(name) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $(name))))
VENV := .venv
# Of make lock alone; in an environment of its own, which is removed.
UV := uv==0.13.9
LOCKING := .venv-lock
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two tests at a time, each on one core. One at a time, to see what a test prints: WORKERS=0.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: train quick test docs lock install lint clean

train: install
	$(BIN)/python -m cxrlab.train

quick: lint
	$(PYTEST) -m "not slow and not real_data"

test: lint
	$(PYTEST)

docs: install
	$(BIN)/python -m sphinx -W --keep-going docs docs/_build/html
	@echo "Open docs/_build/html/index.html."

lock:
	$(PYTHON) -m venv --clear $(LOCKING)
	$(LOCKING)/bin/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(LOCKING)/bin/uv pip compile pyproject.toml --extra dicom --extra explain --constraint constraints.txt --universal \
		--python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock" --quiet \
		--output-file requirements.lock
	rm -rf $(LOCKING)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "cxrlab needs Python 3.11, 3.12 or 3.13; none was found. Set PYTHON=/path/to/python."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(LOCKING) .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build docs/reference/generated
