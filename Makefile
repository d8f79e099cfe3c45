# make book | make book-offline | make test | make lab: each makes the environment in .venv/ first, once.
# make assignments | make slides | make wheelhouse: for teachers. On Windows, or without make: the same lines stand in the README.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
WEB := book/web/node_modules/.package-lock.json
TOOLS := .venv-tools
COURSE ?= course
# A folder that make wheelhouse has filled: everything is installed from there, and no index is asked.
WHEELHOUSE ?=
PIP := -m pip --quiet --disable-pip-version-check
OFFLINE := $(if $(WHEELHOUSE),--no-index --find-links "$(WHEELHOUSE)")

export TF_CPP_MIN_LOG_LEVEL := 3
# make test: so many processes side by side for the unit tests, a file each; and so many notebooks, which now and then wait for
# their kernels (on two cores 10:16 with three, 11:32 with two).
WORKERS ?= 2
NOTEBOOKS_AT_ONCE ?= 3
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.DEFAULT_GOAL := book
.PHONY: book book-offline test lab environment assignments slides wheelhouse package lint chapter notebooks check claims figures requirements clean

environment: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: call make PYTHON=python3.12 (or another that you have)" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) install $(OFFLINE) -r requirements.txt
	$(BIN)/python $(PIP) install $(OFFLINE) --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $(STAMP)

# Sources first (notebooks with outputs, alt texts, links), then the book, then its pages.
book: $(STAMP)
	$(BIN)/python -m pytest -q tests/test_book.py tests/test_claims.py
	$(BIN)/jupyter-book build . --all -W --keep-going -n
	$(BIN)/python -m pytest -q tests/test_pages.py
	@echo "Open _build/html/index.html"

# The same pages in _build/offline, with no other host: npm packages stand in for CDNs (see book/_ext/offline.py).
book-offline: $(STAMP) $(WEB)
	rm -rf _build/offline _build/offline-work
	BOOK_OFFLINE=1 $(BIN)/jupyter-book build . --all -W --keep-going -n --path-output _build/offline-work
	mv _build/offline-work/_build/html _build/offline
	rm -rf _build/offline-work
	$(BIN)/python -m pytest -q tests/test_offline.py
	@echo "Open _build/offline/index.html, or copy the folder to a stick"

$(WEB): book/web/package.json book/web/package-lock.json
	@npm --version > /dev/null || { echo "this needs npm, which comes with Node.js 18 or newer: install it first"; exit 1; }
	npm ci --ignore-scripts --prefix book/web
	@touch $(WEB)

# Every test run begins with an empty cache, which its notebooks share.
test: $(STAMP)
	rm -rf _build/test-cache
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests
	TLHELPERS_CACHE="$(CURDIR)/_build/test-cache" $(BIN)/python -m pytest -v -n $(NOTEBOOKS_AT_ONCE) --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=600 notebooks

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks

# For teachers: assignments for nbgrader in the folder COURSE, from the exercises with solutions; what lies there beside
# source/ and release/ (marks, submissions) is left alone. nbgrader has an environment of its own, its notebooks run in .venv.
assignments: $(STAMP) $(TOOLS)/installed
	$(BIN)/python book/tools/make_assignments.py "$(COURSE)"
	cd "$(COURSE)" && "$(CURDIR)/$(TOOLS)/bin/python" "$(CURDIR)/book/tools/nbgrader_course.py" $$(ls source | sed 's/^/generate_assignment:/')
	@echo "Give out the notebooks in $(COURSE)/release; see book/teaching.md or the README"

$(TOOLS)/installed: requirements-tools.txt $(STAMP)
	$(BIN)/python -m venv $(TOOLS)
	$(TOOLS)/bin/python $(PIP) install -r requirements-tools.txt
	$(BIN)/python -m ipykernel install --prefix $(TOOLS) --name python3
	@touch $(TOOLS)/installed

# Slides of the chapters in _build/slides, which load nothing from other hosts (see book/tools/make_slides.py).
slides: $(STAMP) $(WEB)
	$(BIN)/python book/tools/make_slides.py
	@echo "Open _build/slides/index.html"

# Everything that pip installs for this system and this Python, in one folder: machines without a network install from there.
# Then an empty environment is made from it with the index switched off, and used.
wheelhouse: $(STAMP)
	rm -rf _build/wheelhouse
	$(BIN)/python $(PIP) wheel --no-deps -r requirements.txt --wheel-dir _build/wheelhouse
	$(BIN)/python $(PIP) wheel --no-deps --no-build-isolation . --wheel-dir _build/wheelhouse
	cp requirements.txt _build/wheelhouse
	TLHELPERS_WHEELHOUSE=_build/wheelhouse $(BIN)/python -m pytest -q tests/test_wheelhouse.py
	@du -sh _build/wheelhouse

# The package as it is published: dist/, looked at by twine and installed into an empty environment by the tests.
package: $(STAMP) $(TOOLS)/installed
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(TOOLS)/bin/twine check --strict dist/*
	$(BIN)/python -m pytest -q tests/test_distribution.py

lint: $(STAMP) $(TOOLS)/installed
	$(TOOLS)/bin/ruff check .
	$(TOOLS)/bin/mypy --python-executable $(BIN)/python

# For authors: begin a chapter; run notebooks (all, or NOTEBOOKS="…") and keep their outputs; test these notebooks and the
# sources, quickly; write the quoted numbers and the students' notebooks anew; draw figures again; pin versions again.
chapter: $(STAMP)
	$(BIN)/python book/tools/new_chapter.py "$(NUMBER)" "$(NAME)" "$(TITLE)"

notebooks: $(STAMP)
	rm -rf _build/test-cache
	TLHELPERS_CACHE="$(CURDIR)/_build/test-cache" $(BIN)/python book/tools/run_notebooks.py $(NOTEBOOKS)

check: $(STAMP)
	$(BIN)/python -m pytest -q tests/test_book.py tests/test_claims.py tests/test_exercises.py
	$(BIN)/python -m pytest -v --nbval-lax --nbval-current-env --nbval-cell-timeout=600 $(or $(NOTEBOOKS),notebooks)

claims: $(STAMP)
	$(BIN)/python book/_ext/ledger.py
	$(BIN)/python book/tools/make_exercises.py

figures: $(STAMP)
	$(BIN)/python book/tools/make_figures.py

requirements:
	uv pip compile --universal --fork-strategy fewest --python-version 3.11 --no-emit-package tlhelpers \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements" \
		requirements.in -o requirements.txt
	uv pip compile --universal --fork-strategy fewest --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements" \
		requirements-tools.in -o requirements-tools.txt

clean:
	rm -rf .venv .venv-tools _build dist book/web/node_modules
