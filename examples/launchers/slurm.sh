#!/bin/bash
# Eight processes fill one cache. More may be submitted while they run; any of them may be preempted.
#SBATCH --job-name=bancache-dump
#SBATCH --array=0-7
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail
srun bancache dump --teacher gen0.pt --out "$SCRATCH/gen0.zarr" --num-views all --join
