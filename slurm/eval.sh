#!/usr/bin/env bash
# Evaluates a run with the paper's 8 clips x 3 crops on one node of 8 GPUs.
#   sbatch -p PARTITION -A ACCOUNT slurm/eval.sh --data SHARDS --checkpoint runs/k400 [options of eval.py]
# slurm/chain.sh submits it after a training job. See docs/slurm.md.
#SBATCH --job-name=dsanet-eval
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=06:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# shellcheck source=slurm/common.sh
source "${DSANET_HOME:-${SLURM_SUBMIT_DIR:?start this script with sbatch}}/slurm/common.sh" || exit 1

evaluate --clips 8 --crops 3 "$@"
