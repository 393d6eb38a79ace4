#!/bin/bash
# Five students of one cache, each with its own seed and its own files.
#SBATCH --job-name=bancache-students
#SBATCH --array=1-5
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=4
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail
mkdir -p "seed$SLURM_ARRAY_TASK_ID"
srun bancache train-student --cache "$SCRATCH/gen0.zarr" \
  --seed "$SLURM_ARRAY_TASK_ID" --out "seed$SLURM_ARRAY_TASK_ID/gen1.pt"
