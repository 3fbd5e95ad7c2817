# `make demo` and `make test` do all set-up on a fresh machine with Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# ONNX Runtime's wheels send telemetry at session start unless told not to
export ORT_DISABLE_TELEMETRY := 1
# with an NVIDIA GPU, the CUDA build of ONNX Runtime; never both: they own the same module
BACKEND := $(if $(shell nvidia-smi -L 2>/dev/null),gpu,cpu),openvino
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# bytecode on every CPU, where pip takes one and programs that write none make it at every start; some files are for
# other Pythons
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib model service training || true
CONSTRAINTS := requirements/constraints.txt
UV = UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --no-config --no-annotate \
  --python-version 3.11 --python-platform x86_64-manylinux_2_34
HASHED = $(UV) --generate-hashes --constraint $(CONSTRAINTS)
# three processes keep two CPUs busy: a third of the time of each is spent waiting, most of it for containers
# those of a file in one process, which makes what they share once
TOGETHER := --numprocesses 3 --dist loadfile --no-loadscope-reorder
SAMPLE := --size 1024 1024 --seed 1 --bit-depth 16

.DEFAULT_GOAL := help
.PHONY: help demo serve setup test coverage lint format bench picture images alerts lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# where everything is asked for first, it is installed at once
EXTRAS := $(BACKEND),zarr
$(VENV)/everything: EXTRAS := $(EXTRAS),czi,training,dev

$(VENV)/service: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) # one that was broken off is made whole
	$(PIP) --editable '.[$(EXTRAS)]' --constraint $(CONSTRAINTS)
	$(COMPILE)
	echo '$(EXTRAS)' >$@

$(VENV)/everything: $(VENV)/service
	grep -qx '$(EXTRAS)' $< || { $(PIP) --editable '.[$(EXTRAS)]' --constraint $(CONSTRAINTS) && { $(COMPILE); }; }
	touch $@

demo: $(VENV)/service ## segment a generated sample on the shipped package: demo/mask.png, demo/overlay.png
	$(BIN)/python -m training.synthetic --single demo/sample.tif $(SAMPLE)
	$(BIN)/python clients/demo.py demo

serve: $(VENV)/service ## start the service on http://127.0.0.1:8000
	$(BIN)/unet-service serve

setup: $(VENV)/everything ## install everything, training and tests included, into .venv

test: $(VENV)/everything ## run every test
	$(BIN)/python -m pytest $(TOGETHER) $(PYTEST_ARGS)

coverage: $(VENV)/everything ## the same, and the lines that no test reaches; half as long again
	$(BIN)/python -m pytest --cov $(TOGETHER) $(PYTEST_ARGS)

lint: $(VENV)/everything ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile

format: $(VENV)/everything ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/everything ## overhead over a bare runtime loop; probes and memory under a large image; an image beyond memory; weight maps
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.probes
	$(BIN)/python -m benchmarks.bounded --size 8192 --reference 1024 --budget-mb 640
	$(BIN)/python -m benchmarks.weight_map

picture: demo ## render the README's picture anew
	$(BIN)/python docs/picture.py demo docs/images/demo.png

images: ## build the images of docker-compose.yml, labelled with version and revision
	VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) REVISION=$$(git describe --always --dirty --abbrev=40) \
	  docker compose build

alerts: ## renew the cluster's alert rules from docker/monitoring/rules.yml
	{ printf '# Made by `make alerts` from docker/monitoring/rules.yml.\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: unet\nspec:\n'; \
	  sed -n '/^groups:/,$$s/^/  /p' docker/monitoring/rules.yml; } > docker/kubernetes/overlays/monitoring/prometheusrule.yaml

lock: $(VENV)/service ## renew requirements/*.txt from pyproject.toml
	$(PIP) uv
	$(UV) pyproject.toml --extra cpu --extra openvino --extra zarr --extra czi --extra training --extra dev -o $(CONSTRAINTS)
	$(HASHED) pyproject.toml --extra cpu --extra openvino --extra zarr -o requirements/service-cpu.txt
	$(HASHED) pyproject.toml --extra gpu --extra zarr -o requirements/service-gpu.txt
	$(HASHED) pyproject.toml --extra cpu --extra training -o requirements/training.txt
	echo 'setuptools>=77' | $(HASHED) - -o requirements/build.txt

clean: ## remove everything that was made
	rm -rf $(VENV) demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* .import_linter_cache
