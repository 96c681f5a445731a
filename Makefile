# The commands of this repository; `make` without a target lists them.

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# `make install PYTHON=...` names another Python for a new environment
PYTHON ?= python3 python3.13 python3.12 python3.11

.DEFAULT_GOAL := help
.PHONY: help install run test test-library test-workbook test-docs test-notebooks mutants soak rehearsal local paper reference picture lab site slides browser-test

define need_data
@test -n "$$TSNS_DATA" || { \
  echo "make $@: name the folder of the corpora, as in: make $@ TSNS_DATA=FOLDER" >&2; exit 1; }
@test -d "$$TSNS_DATA" || { echo "make $@: $$TSNS_DATA is no folder" >&2; exit 1; }
endef

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## make the virtual environment and install into it; does nothing the second time

$(STAMP): requirements.lock pyproject.toml
	@test -x "$(BIN)/python" || { \
	  for python in $(PYTHON); do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	      && echo "$$($$python --version) -> $(VENV)" && exec $$python -m venv "$(VENV)"; \
	  done; \
	  echo "make install: Python 3.11 or newer is needed, and none of these is one: $(PYTHON)" >&2; exit 1; }
	"$(BIN)/python" -m pip install --disable-pip-version-check -r requirements.lock
	"$(BIN)/python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: install ## execute every notebook on built-in data; results go to outputs/mini
	"$(BIN)/tsns" run --profile mini --jobs 2

test: run ## lint, types, tests, doctests, and a rerun of the notebooks in outputs/reference; two at a time
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	@ls outputs/reference/*.ipynb >/dev/null 2>&1 || { \
	  echo "make test: outputs/reference holds no executed notebooks to rerun; make reference writes them" >&2; exit 1; }
	@$(MAKE) --no-print-directory -j2 test-library test-workbook test-docs test-notebooks

test-library:
	"$(BIN)/pytest" tests/library tests/faults

test-workbook:
	"$(BIN)/pytest" tests --ignore=tests/library --ignore=tests/faults

test-docs:
	TSNS_CACHE="$$(cd "$(VENV)" && pwd)/cache-of-doctests" "$(BIN)/pytest" --doctest-modules tsns_lib notebooks/tsns_workbook

test-notebooks:
	TQDM_DISABLE=1 "$(BIN)/pytest" --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg outputs/reference

mutants: install ## break important lines one at a time; the test named for each must notice (some five minutes)
	"$(BIN)/python" tests/mutants.py

soak: install ## kill the work 100 times, flip 200 bytes of its store, run it again, compare all; some twenty minutes
	"$(BIN)/python" tests/faults/soak.py

rehearsal: install ## run the profile paper on generated corpora and an encoder with random weights
	"$(BIN)/python" tests/rehearsal.py

local: install ## execute them on the real corpora: make local TSNS_DATA=FOLDER; continues after an interruption
	$(need_data)
	"$(BIN)/tsns" run --profile local

paper: install ## the paper's own setting, for a GPU: make paper TSNS_DATA=FOLDER; says what it costs and asks, unless YES=--yes
	$(need_data)
	"$(BIN)/python" -m tsns_workbook.forecast $(YES)
	"$(BIN)/tsns" run --profile paper

reference: run ## copy the results of make run to outputs/reference, where they are committed
	mkdir -p outputs/reference
	rm -f outputs/reference/*.ipynb outputs/reference/*.results.json
	@for file in params/mini/*.yaml; do name=$$(basename "$$file" .yaml); \
	  cp "outputs/mini/$$name.ipynb" "outputs/mini/$$name.results.json" outputs/reference/ || exit 1; done
	"$(BIN)/python" tests/processor.py > tests/processor.txt

picture: install ## write what is shown of outputs/local: the README's results and figure, figures of the known sources
	"$(BIN)/python" -m tsns_workbook.headline
	"$(BIN)/python" -m tsns_workbook.known

site: install ## pages to read without a network, in build/site; needs pip install -e '.[site]'; REPOSITORY=URL links Binder and Colab
	REPOSITORY="$(REPOSITORY)" "$(BIN)/python" -m tsns_workbook.teaching.site

slides: install ## slides of the lessons, in build/slides; needs pip install -e '.[site]'
	"$(BIN)/python" -m tsns_workbook.teaching.slides

browser-test: install ## JupyterLab and the site in the system's chromium; needs pip install -e '.[browser]'
	"$(BIN)/pytest" tests/browser

lab: install ## open copies of the notebooks in JupyterLab, from build/lab; those that git tracks stay as they are
	mkdir -p build/lab && cp -Rn notebooks/*.ipynb notebooks/lessons build/lab/ || true
	"$(BIN)/jupyter-lab" $$(test "$$(id -u)" != 0 || echo --allow-root) --LabApp.default_url=/lab/tree/build/lab
