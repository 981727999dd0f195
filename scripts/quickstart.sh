#!/usr/bin/env bash
# From nothing to two pretrained encoders: install, render demo pictures, pretrain VICReg and I-JEPA, measure both beside
# their untrained selves and raw pixels, draw a page for each. Then to an agent: record behaviour in a small world of four
# rooms, train a world model and a critic, reach goals.
# Needs bash, git and Python 3.11 or newer; no GPU, no data.
#
#   bash scripts/quickstart.sh
#
# Everything lands in data/demo, data/rooms and runs/quickstart, which a second run makes anew.
# Environment: VENV as in setup.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export VENV="${VENV:-$PWD/.venv}"
bash scripts/setup.sh worlds
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

rm -rf "$shards" data/rooms "$runs"
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

env=jepa_pretrain/Rooms-v0
rooms="$runs/rooms"
goals() { # AGENT NAME: a hundred goals, shown as pictures
  jepa-pretrain agent eval "$1" "$env" --episodes 100 --out "$rooms/eval/$2.json"
}
step "record behaviour in $env -> data/rooms"
jepa-pretrain agent collect "$env" data/rooms --behaviour expert+explorer+sticky --frames 12000 --size 32
step "train a world model, and a critic of it"
jepa-pretrain agent train data/rooms "$rooms/world" --steps 600 --batch_size 128
jepa-pretrain agent critic "$rooms/world" data/rooms "$rooms/agent" --steps 800 --batch_size 256
step "reach goals"
goals random random
goals expert expert
goals "$rooms/agent" planner
jepa-pretrain agent show "$rooms/agent" "$env" "$rooms/page"

step "done"
python scripts/summary.py "$runs"
