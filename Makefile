# Works on a fresh Debian machine with Python 3.11: each target makes .venv if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGE := $(VENV)/.package
EXTRAS := $(VENV)/.extras
NPM := node_modules/.package-lock.json
NODE := $(shell command -v npm)
PYTEST = -m pytest -n $(WORKERS) --dist worksteal --durations 20
TEST = OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST)
WORKERS ?= 2
# Where no bytecode is kept, every process that a test starts compiles torch again, which takes longer than the test.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long test-slow coverage docs bench study faults lint lint-script clean

demo: $(PACKAGE)  ## train, measure, draw and report on synthetic nuclei: runs/demo/report.html
	$(BIN)/unetscope run --out runs/demo $(if $(wildcard runs/demo/config.json),--resume,--preset demo)

test: $(EXTRAS) lint  ## lint, types and the tests that take less than a second each; a few minutes on two cores
	$(TEST) -m "not slow and not long"

test-long: $(EXTRAS)  ## the tests that take seconds
	$(TEST) -m "long and not slow"

test-slow: $(EXTRAS)  ## the tests that take minutes
	$(TEST) -m slow

coverage: $(EXTRAS)  ## all tests but the slow ones, and which lines and branches they run
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run $(PYTEST) -m "not slow"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report | tail -n 1

docs: $(EXTRAS)  ## the site: build/site/index.html
	$(BIN)/mkdocs build --strict --quiet

bench: $(EXTRAS)  ## time everything, in ratios: docs/performance.md; DATA=stage1_train.zip VAL=stage1_test.zip, else synthetic
	$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA)) $(if $(VAL),--val $(VAL))

study: $(EXTRAS)  ## calibrate every estimator on known truths: docs/estimators.md; about half an hour on two cores
	$(BIN)/python -m calibration

faults: $(EXTRAS)  ## mutated files, damaged runs and killed trainings: docs/reliability.md; about an hour on two cores
	OMP_NUM_THREADS=1 $(BIN)/python scripts/make_reliability.py

lint: $(EXTRAS) lint-script
	$(BIN)/ruff check src tests scripts benchmarks calibration
	$(BIN)/ruff format --check src tests scripts benchmarks calibration
	$(BIN)/mypy

ifdef NODE
lint-script: $(NPM)
	npm run --silent lint
else
lint-script:
	@echo "no npm: the page's script is not checked"
endif

$(NPM): package.json package-lock.json
	npm ci --silent --no-audit --no-fund
	@touch $@

$(PACKAGE): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
		|| { echo "unetscope needs Python 3.11 or later: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "no venv: on Debian, apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable .
	@touch $@

$(EXTRAS): $(PACKAGE) no-deps.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --requirement no-deps.txt
	@touch $@

clean:
	rm -rf $(VENV) node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
