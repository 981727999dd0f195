#!/usr/bin/env bash
# Trains one recipe on one GPU machine that nobody can install on, in calls of limited length, then measures the encoder.
#
#   DATA=folder/with/shards OUT=results bash scripts/gpu/pretrain_and_probe.sh recipes/X.yaml [fit options...]
#
# Call it again until it says FINISHED: a call that runs out of time leaves a checkpoint, and the next one goes on there.
# Environment:
#   DATA     folder with train-* and val-* shards
#   OUT      folder for what is kept: logs, tables, the page, and the encoder in half precision, in parts of 15 MiB
#   RUNS     folder of the run and its checkpoint, which must live from call to call; default runs/gpu
#   SECONDS_PER_CALL  training time of this call; default 480
#   PYTHON   default python3; it has torch, torchvision, lightning, timm
#   WHEELS   folder of wheels for what it lacks (webdataset, jsonargparse and what they need); default .whl
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

: "${DATA:?is the folder with the shards}" "${OUT:?is the folder for the results}"
recipe="${1:?usage: pretrain_and_probe.sh RECIPE [fit options]}"
shift
python="${PYTHON:-python3}"
name="$(basename "$recipe" .yaml)"
run="${RUNS:-runs/gpu}/$name"
limit="${SECONDS_PER_CALL:-480}"
mkdir -p "$OUT" "$run"
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 # one thread per loading process; the work is on the GPU

install() { # nothing is fetched, nothing outside a temporary folder is touched
  local site
  site="$(mktemp -d)"
  local options=(--quiet --no-index --no-deps --no-compile --target "$site")
  local wheels=("${WHEELS:-.whl}"/*.whl)
  [ -e "${wheels[0]}" ] && "$python" -m pip install "${options[@]}" "${wheels[@]}"
  "$python" -m pip install "${options[@]}" --no-build-isolation .
  # the installed copy gives the version; the code that runs is the checkout's
  export PYTHONPATH="$PWD:$site"
}

jepa() { "$python" -m jepa_pretrain.cli "$@"; }

shards() { # SPLIT -> pattern of its shards, packed or not
  if compgen -G "$DATA/$1-*.tar.gz" > /dev/null; then echo "$DATA/$1-*.tar.gz"; else echo "$DATA/$1-*.tar"; fi
}

train() {
  local options=(--config "$recipe" --run "$run" --trainer.accelerator gpu --trainer.devices 1 --trainer.logger false
    --data.init_args.train "$(shards train)" --data.init_args.val "$(shards val)" --data.init_args.workers 15
    --checkpoint.every 500)
  if [ -e "$run/checkpoints/last.ckpt" ]; then options+=(--ckpt_path last); fi
  timeout --signal=TERM --kill-after=20 "$limit" "$python" -m jepa_pretrain.cli fit "${options[@]}" "$@"
}

probe() { # ENCODER NAME
  jepa eval linear "$1" "$(shards train)" "$(shards val)" --out "$run/eval/linear-$2.json" --workers 15
  jepa eval knn "$1" "$(shards train)" "$(shards val)" --out "$run/eval/knn-$2.json" --workers 15
}

keep_encoder() { # 44 MB of ResNet-18 or 86 MB of ViT-S become 2 or 3 parts; `cat part-* > model.safetensors` joins them
  "$python" - "$run/export/model.safetensors" "$run/half.safetensors" << 'PYTHON'
import sys

from safetensors.torch import load_file, save_file

weights = load_file(sys.argv[1])
save_file({name: w.half() if w.is_floating_point() else w for name, w in weights.items()}, sys.argv[2])
PYTHON
  split --bytes=15M "$run/half.safetensors" "$OUT/half.safetensors.part-"
}

keep_tables() { # what there is, also of a run that goes on
  local found=()
  for file in metrics.csv config.yaml eval export/config.json export/README.md; do
    [ -e "$run/$file" ] && found+=("$file")
  done
  if [ ${#found[@]} -gt 0 ]; then tar -czf "$OUT/tables.tar.gz" -C "$run" "${found[@]}"; fi
}

install
code=0
train "$@" 2>&1 | tee -a "$run/train.log" || code="${PIPESTATUS[0]}"
cp "$run/train.log" "$OUT/"
if [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; then
  keep_tables
  echo "NOT FINISHED after $limit s: call again with the same RUNS"
  exit 0
elif [ "$code" -ne 0 ]; then
  echo "training failed with code $code" >&2
  exit "$code"
fi
keep_encoder
mkdir -p "$run/eval"
{
  probe "$run/export" trained
  probe "random:$run/export" untrained
  probe pixels pixels
} 2>&1 | tee "$OUT/probe.log"
keep_tables
jepa report "$run"
find "$run" -maxdepth 1 -name '*.html' -size -15M -exec cp {} "$OUT/" \;
echo "FINISHED: results in $OUT"
