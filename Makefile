# make install | demo | test | test-launch | test-faults | test-gpu | lint | clean
# Variables: PYTHON (3.11 or 3.12), TORCH_INDEX (index of CPU wheels of torch), PY (test-gpu: Python of your environment)
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PY ?= $(BIN)/python
PIP := $(BIN)/python -m pip --disable-pip-version-check
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: install demo test test-launch test-faults test-gpu lint clean

install: $(STAMP)

$(STAMP): setup.py launch/constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.11 or 3.12: make install PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25'
	$(PIP) install --quiet $(INDEX) -c launch/constraints-cpu.txt -e '.[cpu,dev]'
	# Builds for CUDA, which break `import transformers` beside a CPU torch; nothing here uses them.
	$(PIP) uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $(STAMP)

demo: install
	$(BIN)/longshort demo

test: install
	$(BIN)/python -m pytest tests --ignore=tests/faults

# Clusters on this host: a `ray start --head`, a Slurm of two nodes, two Ray nodes in network namespaces. Skipped, with a
# reason, where they cannot be.
test-launch: install
	$(BIN)/python -m pytest -rs $(addprefix tests/faults/,test_ray_job.py test_slurm.py test_two_nodes.py)

# Runs that are killed again and again, and a hundred faults at random moments; too long for `test`. The other tests of
# tests/faults are among the hundred.
test-faults: install
	$(BIN)/python -m pytest $(addprefix tests/faults/,test_local.py test_kills.py test_solo.py)
	$(BIN)/python -m tests.faults --seed 0 --count 100

# In an environment with the extras gpu and dev; the installation for CPU is not touched.
test-gpu:
	$(PY) -m pytest tests/gpu -ra

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint launch/Dockerfile
	$(BIN)/shellcheck launch/*.sh

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
