#!/usr/bin/env bash
# From nothing to two pretrained encoders: install, render demo pictures, pretrain VICReg and I-JEPA, measure both beside
# their untrained selves and raw pixels, draw a page for each. Needs bash, git and Python 3.11 or newer; no GPU, no data.
#
#   bash scripts/quickstart.sh
#
# Everything lands in data/demo and runs/quickstart, which a second run makes anew. Environment: VENV as in setup.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export VENV="${VENV:-$PWD/.venv}"
bash scripts/setup.sh
export PATH="$VENV/bin:$PATH"
# The models are so small that a second thread gains little, and loses much where the data worker needs the core.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
SECONDS=0

shards=data/demo
runs=runs/quickstart
train="$shards/train-*.tar"
val="$shards/val-*.tar"

step() { printf '\n== %3d s  %s\n' "$SECONDS" "$*"; }
probe() { # ENCODER NAME RUN [OPTIONS of the linear probe]: both protocols; the results lie beside the run's others
  jepa-pretrain eval linear "$1" "$train" "$val" --out "$3/eval/linear-$2.json" "${@:4}"
  jepa-pretrain eval knn "$1" "$train" "$val" --out "$3/eval/knn-$2.json"
}

rm -rf "$shards" "$runs"
step "demo pictures -> $shards"
jepa-pretrain shards demo "$shards"

step "measure raw pixels, the baseline of both"
probe pixels pixels "$runs/pixels" --lr "[3, 10, 30]" --weight_decay "[0]" --epochs 20 # 3,072 numbers a picture: fewer heads

for method in vicreg ijepa; do
  run="$runs/$method"
  step "pretrain $method"
  jepa-pretrain fit --config "recipes/demo/$method.yaml" --run "$run"
  step "measure $method beside its untrained self"
  probe "$run/export" trained "$run"
  probe "random:$run/export" untrained "$run"
  cp "$runs"/pixels/eval/*.json "$run/eval/"
  jepa-pretrain report "$run"
done

step "done"
python scripts/summary.py "$runs"
