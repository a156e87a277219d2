#!/usr/bin/env bash
# What a GPU can say of this build, in one command and at most 8 minutes, without a download.
#
#   benchmarks/on_gpu.sh [--out FOLDER] [--rehearse] [--only STEP ...]
#
# Figures are in FOLDER/results.json after every step (runs/on_gpu by default), what the steps printed beside it.
# --rehearse runs the same steps on a CPU, with small networks. PYTHON names the interpreter (python3).
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/on_gpu.py "$@"
