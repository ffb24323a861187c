#!/usr/bin/env bash
# Recompile requirements.lock. Run it where torch resolves to its CPU build (PIP_FIND_LINKS naming a folder with that
# wheel), so that the lock names no CUDA package: the same file then gives the CPU build there and torch's CUDA build,
# with what that build demands, on a machine whose index offers it. The extra faster-whisper-gpu is left out for that.
set -euo pipefail
cd "$(dirname "$0")/.."
uv="${UV:-.venv/bin/uv}"
# What is locked already is kept, but for torch and what its CUDA build demands: uv would prefer that build for its number.
sed -i -E '/^(torch==|nvidia-|cuda-toolkit==)/d' requirements.lock
"$uv" pip compile pyproject.toml --extra wav2vec2 --extra transformers --extra faster-whisper --extra test \
    -o requirements.lock --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"}
sed -i 's/^torch==\([0-9.]*\)+cpu$/torch==\1/' requirements.lock
