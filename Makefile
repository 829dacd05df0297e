# The two commands: `make workbook` (the investigation on bundled speech) and `make test`; `make test-full` is the rest.
# Both create the environment in .venv/ first if it is missing; `.venv/bin/tts-workbook` is the same tool.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= quick
DATA ?=
CLIP ?=
OUT ?=
CORPUS ?=

BIN = .venv/bin
STAMP = .venv/installed
SMOKE = GOMP_SPINCOUNT=10000 TTS_WORKBOOK_PROFILE=smoke TTS_WORKBOOK_OUT=$(CURDIR)/runs/nbval

# Notebooks are committed without outputs; `make lint` says which are not.
NOTEBOOKS = $(wildcard notebooks/*.ipynb)

.PHONY: workbook lint test test-full lab evidence bench bench-diagnosis clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is older; try: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[notebooks,test,lint]'
	touch $(STAMP)

workbook: $(STAMP)
	$(BIN)/tts-workbook run --profile $(PROFILE) $(if $(DATA),--data "$(DATA)") $(if $(CLIP),--clip "$(CLIP)") $(if $(OUT),--out "$(OUT)")

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/nbstripout --keep-id --verify $(NOTEBOOKS)

# What a newcomer runs: at most 12 minutes on 2 idle cores. Every test has one thread, so two files run side by side.
test: lint
	$(BIN)/pytest tests -m "not full" --numprocesses 2 --dist loadfile

# The rest (tests/conftest.py says which): whole runs, browsers, clusters, processes that are killed, matrices. Those that
# use all processors themselves run alone.
test-full: $(STAMP)
	rm -rf runs/nbval
	$(SMOKE) $(BIN)/pytest --nbval-lax notebooks -p no:cacheprovider
	$(BIN)/pytest tests -m "full and not alone" --numprocesses 2 --dist loadfile
	$(BIN)/pytest tests -m alone

lab: $(STAMP)
	$(BIN)/jupyter lab --notebook-dir=$(CURDIR) $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/01_check_data.ipynb

evidence: $(STAMP)
	$(BIN)/python benchmarks/seed_size.py
	$(BIN)/python benchmarks/evidence.py $(if $(CORPUS),--corpus "$(CORPUS)")

bench: $(STAMP)
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/executors.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/large_corpus.py

bench-diagnosis: $(STAMP)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/diagnosis.py

clean:
	rm -rf .venv runs build *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
