# A fresh machine needs Python ≥ 3.11, make and, for the DICOM peers of the tests and the demonstration, Debian's apt.
# Everything else is installed here: Python packages into .venv, Debian packages by tests/tools.sh, a viewer by
# tests/web/tools.sh.

PYTHON ?= python3
SHELL := /bin/bash
START := $(shell date +%s)
TOOK = echo "make $@ took $$(( ($$(date +%s) - $(START)) / 60 )) min $$(( ($$(date +%s) - $(START)) % 60 )) s, installation included"
INSTALLED := .venv/.installed
BENCHMARKS := benchmarks.speed.receive benchmarks.speed.receive_load benchmarks.speed.growth benchmarks.speed.inspect benchmarks.speed.simulate benchmarks.speed.write

# Nagle's algorithm with delayed acknowledgements costs DCMTK and Orthanc up to 40 ms per message.
export TCP_NODELAY := 1

.PHONY: demo test check bench mutants cohorts train-fdg ablate-fdg table conformance screenshots serve tools
.DEFAULT_GOAL := test

# nnU-Net's own networks, which tests compare ours with; of what they ask for, the one we compare with needs nothing more.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tracerd needs Python 3.11 or newer, this is " + sys.version)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tests/tools.sh python3-venv
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt --no-deps dynamic-network-architectures
	@touch $@

tools:
	@tests/tools.sh
	@tests/web/tools.sh

demo: $(INSTALLED)
	@tests/tools.sh || echo "going on without them"
	@.venv/bin/tracerd demo --out demo-out; status=$$?; $(TOOK); exit $$status

test: $(INSTALLED) tools
	@.venv/bin/python -m pytest; status=$$?; $(TOOK); exit $$status

check: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: $(INSTALLED) tools
	@set -e; for benchmark in $(BENCHMARKS); do .venv/bin/python -m $$benchmark; done; $(TOOK)

# Which small faults in the code would no test notice? Up to an hour; goes on where it was broken off.
mutants: $(INSTALLED)
	@.venv/bin/python -m tests.mutation.run; status=$$?; $(TOOK); exit $$status

# What is in the simulated cohorts, and are they as hard as reality? Half an hour; goes on where it was broken off.
cohorts: $(INSTALLED)
	@.venv/bin/python -m benchmarks.accuracy.cohorts; status=$$?; $(TOOK); exit $$status

# The DICOM conformance statement: prose of daemon/conformance.md, tables from the code.
conformance: $(INSTALLED)
	.venv/bin/tracerd conformance > docs/conformance.new && mv docs/conformance.new docs/conformance.md

# The windows of the viewer in docs/img, anew.
screenshots: $(INSTALLED) tools
	@TRACERD_SCREENSHOTS=docs/img .venv/bin/python -m pytest tests/web; status=$$?; $(TOOK); exit $$status

# The shipped weights of fdg_segmentation, from its simulated train cohort; goes on where it was broken off.
train-fdg: $(INSTALLED)
	@.venv/bin/python -m benchmarks.accuracy.fdg_segmentation.weights; status=$$?; $(TOOK); exit $$status

# The paper's claims in small runs, minutes each; goes on where it was broken off.
ablate-fdg: $(INSTALLED)
	@.venv/bin/python -m benchmarks.accuracy.fdg_segmentation.ablations; status=$$?; $(TOOK); exit $$status

# Every table of a README from its result files.
table: $(INSTALLED)
	.venv/bin/python -m benchmarks.tables

serve: $(INSTALLED)
	@test -f node.yaml || { cp config/node.example.yaml node.yaml && echo "wrote node.yaml from config/node.example.yaml: make it yours"; }
	.venv/bin/tracerd serve --config node.yaml
