# Works on a fresh Debian machine with Python 3.11: each target makes .venv if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow docs bench study lint clean

demo: $(STAMP)  ## train, measure, draw and report on synthetic nuclei: runs/demo/report.html
	$(BIN)/unetscope run --out runs/demo $(if $(wildcard runs/demo/config.json),--resume,--preset demo)

test: $(STAMP) lint  ## lint, types and the fast tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

docs: $(STAMP)  ## the site: build/site/index.html
	$(BIN)/mkdocs build --strict --quiet

bench: $(STAMP)  ## time everything, in ratios: docs/performance.md; DATA=stage1_train.zip VAL=stage1_test.zip, else synthetic
	$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA)) $(if $(VAL),--val $(VAL))

study: $(STAMP)  ## calibrate every estimator on known truths: docs/estimators.md; about half an hour on two cores
	$(BIN)/python -m calibration

lint: $(STAMP)
	$(BIN)/ruff check src tests scripts benchmarks calibration
	$(BIN)/ruff format --check src tests scripts benchmarks calibration
	$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt no-deps.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
		|| { echo "unetscope needs Python 3.11 or later: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "no venv: on Debian, apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps --requirement no-deps.txt
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
