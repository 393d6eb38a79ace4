#!/bin/bash
# One student on all GPUs of a machine; if a process dies, torchrun restarts from the last saved state.
set -euo pipefail
# Without this, restarted processes may get the addresses of dead ones.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
torchrun --standalone --nproc-per-node=gpu --max-restarts=3 \
  -m bancache_cli train-student --cache gen0.zarr --out gen1.pt
