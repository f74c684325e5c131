# Everything a newcomer or a maintainer types. Needs Python (3.10 or newer, with its venv module) and make.
#
#   make demo       install into .venv, segment a drawn microscope image with the embedded model, print the picture's path
#   make test       lint, then every test that is not marked slow
#   make test-all   the slow ones too
#   make lint       ruff alone
#   make clean      remove .venv and whatever was built
#
# PYTHON=python3.12 make test    another interpreter;  VENV=... another place for the environment;
# TESTS=tests/data PYTEST_ARGS=-x make test    a part of the tests.

PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests
PYTEST_ARGS ?=
# Two tests at a time, each with one thread: small networks gain nothing from two. TEST_PROCESSES=0 for a debugger.
TEST_PROCESSES ?= 2
DEMO_OUTPUT ?= out/demo

BIN := $(VENV)/bin
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test

.PHONY: demo test test-all lint clean

demo: $(INSTALLED)
	$(BIN)/modelscope-fastinst demo --output $(DEMO_OUTPUT)

test: $(INSTALLED_TEST) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m 'not slow' $(PYTEST_ARGS) $(TESTS)

test-all: $(INSTALLED_TEST) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile -m 'slow or not slow' $(PYTEST_ARGS) $(TESTS)

lint: $(INSTALLED_TEST)
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV) build dist *.egg-info out

# The stamps make a second call instant; a changed requirement or build setting installs again. The installation is
# editable, so that changed sources need none.
$(CREATED):
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed; this is " + sys.version.split()[0] + ". Say PYTHON=... make ..." if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(INSTALLED): setup.py pyproject.toml | $(CREATED)
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	touch $@

$(INSTALLED_TEST): setup.py pyproject.toml | $(CREATED)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[test]'
	touch $@ $(INSTALLED)
