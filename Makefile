# make demo   sets everything up and runs the nightly flow on the demo corpus
# make test   sets everything up and runs lint, types and all tests
# Everything lives in .venv, compiled: without, each of a run's processes could spend 35 s on compiling what it imports.
# PIP_INDEX_URL and PIP_FIND_LINKS are honoured.

PYTHON ?= python3.11
UV_VERSION := 0.13.9
UV := .venv/bin/uv pip install --compile-bytecode --python .venv/bin/python \
	$(addprefix --index-url ,$(PIP_INDEX_URL)) $(addprefix --find-links ,$(PIP_FIND_LINKS))

.PHONY: demo test install clean

demo: install
	.venv/bin/voxmill demo

test: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest

install: .venv/.installed

# Done anew when the lock or the project's metadata has changed; nothing to do otherwise.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	echo "voxmill needs Python 3.11 with its venv module, and $(PYTHON) is not that. Install it (for instance" \
	"'uv python install 3.11' or 'apt install python3.11-venv'), or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet uv==$(UV_VERSION)
	$(UV) --quiet -r requirements.lock
	$(UV) --quiet --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf .venv demo build *.egg-info
