#!/bin/sh
# Installs pyrf with its server into an environment of its own. The images run it, and so can any machine.
#
#   deploy/install.sh FOLDER     # FOLDER: of the new environment; PYTHON says with which Python (python3)
#
# TORCH is what is installed first, so that the right build of torch comes: by default the one for a CPU.
set -eu
cd "$(dirname "$0")/.."
folder=$1

"${PYTHON:-python3}" -m venv "$folder"
# shellcheck disable=SC2086  # TORCH may hold options
"$folder/bin/pip" install --no-cache-dir --constraint constraints.txt \
    ${TORCH:-torch --extra-index-url https://download.pytorch.org/whl/cpu}
"$folder/bin/pip" install --no-cache-dir --constraint constraints.txt '.[serve,onnx]'
"$folder/bin/pyrf" doctor
