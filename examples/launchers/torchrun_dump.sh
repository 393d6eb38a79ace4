#!/bin/bash
# One process per GPU fills one cache; if one dies, the others redo its shards.
set -euo pipefail
torchrun --standalone --nproc-per-node=gpu \
  -m bancache_cli dump --teacher gen0.pt --out gen0.zarr --num-views all --join
