# Everything a user or a developer runs; 'make' alone lists it. Each target does its own set-up.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# What setup compiles to bytecode: a command starts in half the time where Python itself may not write it.
SOURCES := .types/hyps compiler models passes runtime tests
# Debian's packages that the tests need; make itself is there.
SYSTEM_PACKAGES := python3-venv mosquitto systemd chromium iproute2 fish zsh
ARM_PACKAGES := qemu-system-arm mmdebstrap cpio e2fsprogs
# The versions of onnxruntime whose memory was measured (runtime/library_memory.py): the oldest allowed, the newest.
ORT ?= 1.23 1.28 1.31 1.32
# The versions of Kubernetes whose schemas check the manifests.
KUBERNETES := 1.27 1.37
# The golden plans of two light networks at every budget: bits, peaks and steps.
FAST_REGRESSION := -k 'test_budgets and (squeezenet or mobilenet)'

.DEFAULT_GOAL := help
.PHONY: help setup setup-system demo cluster-demo test test-policies regression budgets coverage test-arm bench bench-cluster bench-codes bench-dask bench-exits bench-moves bench-page bench-placement bench-plans deploy-check fuzz docs lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make a virtual environment (.venv) with everything, from PyPI

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "cannot make $(VENV): install Python's venv (Debian: python3-venv)"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[compiler,exits,report,manager,web,dask,placement,video,docs,dev]'
	@$(BIN)/python -m compileall -q $(SOURCES)
	@touch $@

setup-system: ## install the programs that the tests need beside Python (Debian, as root)
	apt-get update -qq && apt-get install -y -qq $(SYSTEM_PACKAGES)

demo: $(READY) ## VGG16 in 128 MB on a photograph, then a trained network that names what is in it
	$(BIN)/python -m tests.demo

cluster-demo: $(READY) ## a hub, a manager and three workers on this machine; one is killed in the middle
	$(BIN)/python -m tests.cluster_demo

test: $(READY) ## the tests
	$(BIN)/python -m pytest -n 3 --dist worksteal

regression: $(READY) ## compile and run every reference network at every budget, compare with the whole model (UPDATE=1: rewrite the golden plans; DRAWS=1000: as many random draws; FAST=1: what .ci/run runs, in a few minutes)
	$(BIN)/python -m pytest -m regression $(if $(UPDATE),--update,-n 2 --dist worksteal) $(if $(DRAWS),--draws $(DRAWS) -k random_draws) $(if $(FAST),$(FAST_REGRESSION))

test-policies: $(READY) ## tests of exit policies that are learned by DQN, which need torch (installs the extra policy)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[policy]'
	$(BIN)/python -m pytest -q tests/compiler/exits tests/runtime/exits

budgets: $(READY) ## keep the smallest budgets of small networks with several versions of onnxruntime (ORT="1.23 1.28 1.32": these)
	@for version in $(ORT); do \
		echo "onnxruntime $$version"; \
		test -d build/onnxruntime-$$version || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
			--target build/onnxruntime-$$version "onnxruntime==$$version.*" || exit 2; \
		PYTHONPATH=$(CURDIR)/build/onnxruntime-$$version $(BIN)/python -m pytest -m regression -n 2 -k "not vgg16" tests/regression/test_smallest_budgets.py tests/regression/test_c_interface_budgets.py || exit 1; \
	done

coverage: $(READY) ## write docs/coverage.md: what of third-party suites compiles, what is refused and why
	$(BIN)/python -m pytest -m regression tests/regression/test_suites.py --update

test-arm: $(READY) ## VGG16 on emulated ARM boards, table in docs/arm.md (FAST=1: small networks; ROWS="...": these rows)
	@dpkg -s $(ARM_PACKAGES) >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $(ARM_PACKAGES); } \
		|| { echo "make test-arm needs Debian's $(ARM_PACKAGES): install them as root"; exit 2; }
	$(BIN)/python -m $(if $(FAST),pytest -m arm,tests.arm.main $(ROWS))

bench: $(READY) ## memory and latency beside what a user would pick instead, as ratios within one run
	$(BIN)/python -m tests.bench.main $(if $(ONLY),--only $(ONLY)) $(if $(RENDER),--render)

bench-cluster: $(READY) ## several devices: bits, bytes, speed, memory; tables in docs/cluster.md (FAULTS=200: kills and pulled cables, too)
	$(BIN)/python -m tests.bench.cluster $(if $(FAULTS),--faults $(FAULTS))

bench-codes: $(READY) ## codes: workers killed, stragglers, what decoding and losses cost; docs/codes.md (KILLS=50, FAULTS=200, INFERENCES=100: as many; MINUTES=30: at most for a stream; ONLY=kills)
	KILLS=$(or $(KILLS),50) FAULTS=$(or $(FAULTS),200) INFERENCES=$(or $(INFERENCES),100) MINUTES=$(or $(MINUTES),30) $(BIN)/python -m tests.bench.codes $(if $(ONLY),--only $(ONLY)) $(if $(RENDER),--render)

bench-dask: $(READY) ## on Dask: throughput, what a task costs, 1,000 photographs; tables in docs/dask.md
	$(BIN)/python -m tests.bench.farm

bench-exits: $(READY) ## early exits: accuracy, policies, promises; docs/early-exits.md (needs torch: CONTRIBUTING.md; ONLY=betas, storage, ...)
	$(BIN)/python -m tests.bench.exits $(if $(ONLY),--only $(ONLY)) $(if $(RENDER),--render)

bench-moves: $(READY) ## kills while steps move under a stream: each image is answered once, right and in order (KILLS=200: as many)
	$(BIN)/python -m tests.bench.moves $(if $(KILLS),--kills $(KILLS))

bench-page: $(READY) ## the manager's page with 20 boards and 200 partitions; table in docs/page.md
	$(BIN)/python -m tests.bench.page

bench-placement: $(READY) ## placements of the thesis's systems, simulated, and predictions against real workers; docs/placement.md; planning times (ONLY=systems, real or scale; SECONDS=400: of real, as long, and the next call goes on)
	$(BIN)/python -m tests.bench.placement $(if $(ONLY),--only $(ONLY)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(RENDER),--render)

bench-plans: $(READY) ## whether estimates order plans as measured times do: Kendall's tau of 100 plans (PLANS=20: as many)
	$(BIN)/python -m tests.bench.plan_order $(if $(PLANS),--plans $(PLANS))

deploy-check: $(READY) ## the Kubernetes manifests by kubernetes-validate and checkov, from PyPI, in an environment of their own
	@test -x build/deploy/bin/checkov || { $(PYTHON) -m venv build/deploy && build/deploy/bin/python -m pip install --quiet \
		--disable-pip-version-check kubernetes-validate checkov; }
	build/deploy/bin/kubernetes-validate --strict $(addprefix -k ,$(KUBERNETES)) docs/deploy/kubernetes/cluster.yaml
	LOG_LEVEL=CRITICAL build/deploy/bin/checkov --framework kubernetes --compact --quiet --skip-download \
		--file docs/deploy/kubernetes/cluster.yaml

fuzz: $(READY) ## damaged pictures, tensors, manifests, frames, messages, boards files and models for SECONDS=60; findings go to build/fuzz
	$(BIN)/python -m tests.fuzz.main $(or $(SECONDS),60) $(TARGETS)

docs: $(READY) ## the documentation's site in build/site; broken links are errors
	$(BIN)/python -m tests.documents
	$(BIN)/mkdocs build --strict

lint: $(READY) ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .types/hyps tests
	$(BIN)/lint-imports

clean: ## remove the environment and everything generated
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
