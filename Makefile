# handsell
#   make up   [CONFIG=deployments/configs/world.toml] [DATA=dir]   install, train, serve, and show a recommendation
#   make install                                                   install only; then: . .venv/bin/activate && handsell --help
#   make wheel                                                     build dist/handsell-….whl, which works without this checkout
#   make demo [CONFIG=…]                                           open an example shop page on the running service
#   make test                                                      install and run the tests
#   make test-all                                                  run the slow tests, too, and those on the cluster of $$KUBECONFIG
#   make docs                                                      build the documentation site into build/docs
#   make sbom                                                      write sbom.json, the packages that handsell needs (CycloneDX)
#   make explore [ROUNDS=10]                                       run the property tests with fresh random examples
CONFIG ?= deployments/configs/world.toml
DATA ?=
TOPOLOGY ?= graph
ROUNDS ?= 10
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := torch==2.13.0
TORCH_CPU := https://download.pytorch.org/whl/cpu

export RAY_USAGE_STATS_ENABLED := 0
export OMP_NUM_THREADS := 1
# with the locale C, Python cannot start where the path of the checkout is not ASCII
ifneq ($(filter C POSIX,$(LC_ALL)),)
export LC_ALL := C.UTF-8
endif

.PHONY: install up down demo docs test test-all explore check wheel sbom bench clean

install: $(READY)

# the shell reads both paths from its environment, as they were given: they may have spaces, quotes and dollars
up down demo: export CONFIG_PATH := $(value CONFIG)
up: export DATA_PATH := $(value DATA)

up: $(READY)
	@$(BIN)/python -m handsell up "$$CONFIG_PATH" --topology $(TOPOLOGY) $(if $(value DATA),--data "$$DATA_PATH")

down: $(READY)
	@$(BIN)/python -m handsell down "$$CONFIG_PATH"

demo: $(READY)
	@$(BIN)/python clients/web/demo/shop.py "$$CONFIG_PATH"

test: $(READY)
	@status=0; \
	$(BIN)/python -m pytest -m "not cluster and not slow and not kube" -n auto --dist loadfile || status=1; \
	$(BIN)/python -m pytest -m "cluster and not slow and not kube" || status=1; \
	exit $$status

# the folder is where the tests with a cluster leave the deployment that they have trained, for the slow ones
test-all: $(READY)
	@HANDSELL_TEST_DEPLOYMENT="$$(mktemp -d)"; export HANDSELL_TEST_DEPLOYMENT; \
	trap 'rm -rf "$$HANDSELL_TEST_DEPLOYMENT"' EXIT; \
	status=0; \
	$(MAKE) --no-print-directory test || status=1; \
	$(BIN)/python -m pytest -m "slow and not cluster and not kube" -n auto --dist loadfile || status=1; \
	$(BIN)/python -m pytest -m "slow and cluster or kube" || status=1; \
	exit $$status

explore: $(READY)
	@set -e; for round in $$(seq $(ROUNDS)); do \
	$(BIN)/python -m pytest -q -m "hypothesis and not slow" --hypothesis-profile=explore tests/unit; done

check: $(READY)
	$(BIN)/ruff check setup.py src tests benchmarks feature_repo deployments/monitoring clients docs
	$(BIN)/ruff format --check setup.py src tests benchmarks feature_repo deployments/monitoring clients docs
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

wheel: $(READY)
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(READY)
	@$(BIN)/mkdocs build --quiet
	@echo "The site is in build/docs. To read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/docs 8100"

sbom: $(READY)
	$(BIN)/python deployments/make_sbom.py > sbom.json

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .handsell

# torch on PyPI brings NVIDIA's libraries (6.7 GB in all). Without a GPU the build of PyTorch's own index does (2.7 GB).
$(READY): pyproject.toml constraints.txt setup.py $(wildcard src/handsell/core/kernels/*.[ch])
	@echo "installing into $(VENV) (3 to 7 minutes) …"
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 13), f"handsell needs Python 3.11 or 3.12, this is {sys.version.split()[0]}: make PYTHON=python3.11"'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if ! nvidia-smi -L >/dev/null 2>&1 && timeout 2 $(BIN)/python -c 'import urllib.request; urllib.request.urlopen("$(TORCH_CPU)/torch/")' 2>/dev/null \
	&& echo "  torch for the CPU from $(TORCH_CPU): 2.7 GB with all libraries" \
	&& $(PIP) --no-deps --index-url $(TORCH_CPU) $(TORCH); then :; \
	else echo "  torch from PyPI, with NVIDIA's libraries: 6.7 GB with all libraries"; $(PIP) --constraint constraints.txt $(TORCH); fi
	@$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@
