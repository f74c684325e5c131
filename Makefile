# Everything a newcomer or a maintainer types. Needs Python (3.10 or newer, with its venv module) and make.
#
#   make demo       install into .venv, segment a drawn microscope image with the embedded model, print the picture's path
#   make studio     try models in the browser, with pictures and videos; Ctrl-C ends it
#   make test       lint, then every test that is not marked slow
#   make test-all   the slow ones too
#   make lint       ruff alone
#   make clean      remove .venv and whatever was built
#
# PYTHON=python3.12 make test    another interpreter;  VENV=... another place for the environment;
# TESTS=tests/data PYTEST_ARGS=-x make test    a part of the tests;
# STUDIO_ARGS='--model work_dir/output --port 8000' make studio    other models, another port: what
# "modelscope-fastinst studio --help" lists.

PYTHON ?= python3
VENV ?= .venv
TESTS ?= tests
PYTEST_ARGS ?=
# Two tests at a time, each with one thread: small networks gain nothing from two. TEST_PROCESSES=0 for a debugger.
TEST_PROCESSES ?= 2
DEMO_OUTPUT ?= out/demo
STUDIO_ARGS ?=

BIN := $(VENV)/bin
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
INSTALLED_DEMO := $(VENV)/.installed-demo
INSTALLED_TEST := $(VENV)/.installed-test

.PHONY: demo studio test test-all lint clean

demo: $(INSTALLED)
	$(BIN)/modelscope-fastinst demo --output $(DEMO_OUTPUT)

studio: $(INSTALLED_DEMO)
	$(BIN)/modelscope-fastinst studio $(STUDIO_ARGS)

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

$(INSTALLED_DEMO): setup.py pyproject.toml | $(CREATED)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[demo]'
	touch $@ $(INSTALLED)

# The tests need all of the demo's packages, so that after them nothing is missing for it.
$(INSTALLED_TEST): setup.py pyproject.toml | $(CREATED)
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[test]'
	touch $@ $(INSTALLED) $(INSTALLED_DEMO)
