#!/usr/bin/env bash
# I-JEPA, ViT-S/16, Imagenette on one GPU; to beat: 34.0 linear (stable-pretraining).
#   DATA=data/imagenette160 OUT=results bash scripts/gpu/imagenette_ijepa.sh      (see pretrain_and_probe.sh)
exec bash "$(dirname "${BASH_SOURCE[0]}")/pretrain_and_probe.sh" recipes/ijepa_vits16_imagenette.yaml "$@"
