# `make demo` and `make test` need Python 3.11, 3.12 or 3.13 with pip, and nothing else: everything is installed into .venv.
# Another interpreter: `make demo PYTHON=python3.12`. More processes at a time: `make demo CORES=8`.

PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin
READY := .venv/.ready
# Another `snakemake`, and another `restok` for its jobs, may come first (tests/warm_commands.py).
RUN := PATH="$(FIRST)$(CURDIR)/$(BIN):$$PATH"
# Packages from outside .venv would not be the pinned ones.
unexport PYTHONPATH PYTHONHOME

.PHONY: demo ablations test short tracking pages artifacts slurm docs commands lint setup lock schema clean

demo: $(READY)
	@echo "About 5 minutes on 2 cores, for reports/demo/index.html. It may be stopped, and goes on where it was. How far it is:" \
		".venv/bin/restok progress --follow in another terminal"
	$(RUN) snakemake --cores $(CORES)
	@echo "The demo is done: open reports/demo/index.html"
	@echo "Its trainings, with their curves, in a browser: .venv/bin/restok ui"
	@echo "Tables 2 to 5 and 10, and what the authors' release does otherwise: make ablations (16 more tokenizers)."
	@echo "One of them alone: .venv/bin/snakemake --cores $(CORES) reports/demo/table4.csv"

# The main run's jobs go first, so that its page is there early; the second call adds the new tables to the page.
ablations: $(READY)
	$(RUN) snakemake --cores $(CORES) --prioritize reports/demo/index.html -- all ablations
	$(RUN) snakemake --cores $(CORES)
	@echo "All tables are done: open reports/demo/index.html, or .venv/bin/restok ui to compare their rows"

test: $(READY)
	$(RUN) python -m pytest

# The demo with few steps, for continuous integration, and a check of every table and picture that it makes.
short: $(READY)
	$(RUN) snakemake --cores $(CORES) --config run=short --prioritize reports/short/index.html -- all ablations
	$(RUN) snakemake --cores $(CORES) --config run=short
	$(RUN) RESTOK_PARAMS=params/short.yaml python -m pytest -n 0 tests/check_reports.py

# MLflow's stores as they fail, and what the workflow of `make short` sent to one.
tracking: $(READY)
	$(RUN) python -m pytest -n 2 --dist worksteal tests/check_tracking.py

# The commands of README.md and docs/, typed in a copy of this folder with what `make short` left.
commands: $(READY)
	$(RUN) python -m pytest -n 2 --dist worksteal tests/check_docs.py

# The pages, looked at in a real browser: Debian's chromium. Of the report, the one that `make short` left.
pages: $(READY)
	$(RUN) RESTOK_PARAMS=params/short.yaml python -m pytest -n 2 -rs tests/check_ui.py tests/check_pages.py tests/check_site.py \
		tests/check_browser.py

# What `make short` left, its rest made by `dvc repro`, pushed and pulled; and DVC on a real server of S3, which is started and
# ended here, and on one of SSH where Debian's openssh-server is installed.
artifacts: $(READY)
	$(RUN) python -m pytest -n 2 --dist worksteal tests/check_artifacts.py tests/check_remotes.py

# The workflow on a real SLURM, which is started for it on this machine and ended after it, held against what `make short` left; as
# root, with Debian's slurm-wlm and munge.
slurm: $(READY)
	$(RUN) python tests/slurm_cluster.py python -m pytest -n 5 --dist worksteal tests/check_slurm.py tests/check_cluster.py

# docs/ as a site: open site/index.html. A link or an anchor that leads nowhere is an error.
docs: $(READY)
	$(RUN) NO_MKDOCS_2_WARNING=1 mkdocs build --quiet --strict
	@echo "Open site/index.html"

lint: $(READY)
	$(RUN) ruff check .
	$(RUN) snakefmt --check Snakefile workflow/rules
	$(RUN) snakemake --lint

setup: $(READY)

# pip installs uv as the lock pins it; uv installs the rest, exactly, and refuses what does not fit its hash.
$(READY): requirements.lock pyproject.toml | $(BIN)/python
	@rm -f $@
	@sed '/^uv==/,/# via/!d' requirements.lock > .venv/uv.txt
	@if $(BIN)/python -m pip --version >/dev/null 2>&1; then pip="$(BIN)/python -m pip"; \
	elif $(PYTHON) -m pip --version >/dev/null 2>&1; then pip="$(PYTHON) -m pip --python $(BIN)/python"; \
	else echo "$(PYTHON) has neither ensurepip nor pip; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; fi; \
	echo "Installing what requirements.lock pins into .venv: about 3 GB, and a pause while it is compiled"; \
	$$pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(BIN)/uv pip sync --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Ready. In each new terminal: source .venv/bin/activate"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "restok needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is $$($(PYTHON) --version 2>&1);" \
			"name another: make PYTHON=python3.12" >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv .venv; else $(PYTHON) -m venv --without-pip .venv; fi

# Pins stay where they still fit pyproject.toml; `make lock UPGRADE=--upgrade` takes the newest of everything.
lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --extra ui --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --output-file requirements.lock $(UPGRADE)

# What editors check parameter files against, and readers a result; tests keep them in step with restok/config/ and
# restok/experiments/results.py.
schema: $(READY)
	$(BIN)/python -m restok.config.load > workflow/schemas/params.json
	$(BIN)/python -m restok.experiments.results > docs/result.schema.json

# The environment, the caches and the site; results/, runs/ and reports/ stay.
clean:
	rm -rf .venv .pytest_cache .ruff_cache site
	find restok tests -name __pycache__ -type d -prune -exec rm -rf {} +
