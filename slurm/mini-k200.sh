#!/usr/bin/env bash
# DSANet on Mini-Kinetics-200: one node of 8 GPUs.
#   sbatch -p PARTITION -A ACCOUNT slurm/mini-k200.sh --data SHARDS --out runs/mini [options of train.py]
# Submit from the repository. The same command resumes the run. See docs/slurm.md.
#SBATCH --job-name=dsanet-mini-k200
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# shellcheck source=slurm/common.sh
source "${DSANET_HOME:-${SLURM_SUBMIT_DIR:?start this script with sbatch}}/slurm/common.sh" || exit 1

train --recipe mini-kinetics200 --model dsa_i3d_r50 "$@"
