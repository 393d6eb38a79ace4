#!/bin/bash
# One student on all GPUs of a machine; started anew, from its last saved state, when a process dies.
set -euo pipefail
# Without this, restarted processes may be given the addresses of dead ones.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
torchrun --standalone --nproc-per-node=gpu --max-restarts=3 \
  -m bancache_cli train-student --cache gen0.zarr --out gen1.pt
