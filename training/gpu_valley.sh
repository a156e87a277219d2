#!/usr/bin/env bash
# Trains one stage of the valley's recipe on one GPU, within a time that a lent machine allows.
#
#   training/gpu_valley.sh STAGE STEPS OUT
#
# It goes on from the network of the bundled valley. Where RUN/parts, of a new RUN, holds the parts that an
# earlier call left in OUT, it goes on from those. Scenes are drawn and encoded on all cores first. OUT gets the network of the
# latest evaluation in parts of at most 16 MB, the log and the latest contact sheet.
#
# Settings, by the environment: MINUTES (8.5 in all), SCENES (6000), BATCH (256 samples a step),
# EVALUATE (minutes between evaluations, 1.5), DEVICE (cuda), RUN (runs/gpu_valley), PYTHON (python3).
# "DEVICE=cpu SCENES=10 BATCH=2 EVALUATE=0 training/gpu_valley.sh turns 2 /tmp/out" rehearses it.
set -euo pipefail
[ $# = 3 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
stage=$1 steps=$2 out=$3
run=${RUN:-runs/gpu_valley} python=${PYTHON:-python3}
export PYTHONPATH=$PWD DEVICE=${DEVICE:-cuda} SCENES=${SCENES:-6000} BATCH=${BATCH:-256} EVALUATE=${EVALUATE:-1.5}
left=$($python -c "print(round(60 * ${MINUTES:-8.5}) - 20)") # the rest is for the parts
mkdir -p "$run" "$out"

"$python" - "$stage" "$steps" >"$run/recipe.yaml" <<'PYTHON'
import os
import sys

import yaml

name, steps = sys.argv[1], int(sys.argv[2])
with open("training/recipes/valley.yaml") as file:
    recipe = yaml.safe_load(file)
recipe |= {"device": os.environ["DEVICE"], "processes": 1, "scenes": int(os.environ["SCENES"])}
recipe["stages"][name]["train"] |= {
    "steps": steps,
    "batch": int(os.environ["BATCH"]),
    "global_batch": None,
    "eval_minutes": float(os.environ["EVALUATE"]),
    "log_steps": 10,
}
print(yaml.safe_dump(recipe, sort_keys=False))
PYTHON

"$python" - "$run" "$stage" <<'PYTHON'
import sys
from pathlib import Path

from pyrf.bundle.bundle import load_bundle
from pyrf.bundle.hub import find_bundle
from pyrf.training.kinds import load_recipe

run, stage = Path(sys.argv[1]), sys.argv[2]
load_recipe(str(run / "recipe.yaml")).restore(run, load_bundle(find_bundle("valley")), stage)
PYTHON
if compgen -G "$run/parts/valley.tar.*" >/dev/null; then
    before=$("$python" -c "import yaml; print(yaml.safe_load(open('$run/recipe.yaml'))['stages']['$stage']['init'])")
    cat "$run"/parts/valley.tar.* | tar -x -C "$run/$before"
fi
status=0
timeout --signal TERM --kill-after 15 "$left" \
    "$python" -m pyrf train "$run/recipe.yaml" --out "$run" --stage "$stage" 2>&1 |
    tee "$out/train.log" || status=${PIPESTATUS[0]}
case $status in
    0 | 124 | 137) ;; # done, or the time was over, which is how it usually ends
    *) exit "$status" ;;
esac
[ -e "$run/$stage/network.safetensors" ] || { echo "no evaluation came in time: raise MINUTES" >&2; exit 1; }
tar -C "$run/$stage" -c network.safetensors network.json |
    split --bytes 15000000 --numeric-suffixes - "$out/valley.tar."
sheet=$(ls -t "$run/$stage"/*.png 2>/dev/null | head -1)
[ -z "$sheet" ] || cp "$sheet" "$out/"
ls -l "$out"
