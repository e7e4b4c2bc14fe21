#!/usr/bin/env bash
# Makes shards of videos in an array job; each task may be killed and requeued at any time.
#   sbatch --array=0-31 slurm/shard.sh --dataset kinetics400 --videos /raw/train --list train.csv \
#       --split train --out SHARDS [options of tools/shard.py]
# Submit from the repository. See docs/slurm.md.
#SBATCH --job-name=dsanet-shard
#SBATCH --array=0-15
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=16
#SBATCH --mem-per-cpu=2G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.out
# shellcheck source=slurm/common.sh
source "${DSANET_HOME:-${SLURM_SUBMIT_DIR:?start this script with sbatch}}/slurm/common.sh" || exit 1

enter "$@"
in_container "$(option videos "$@")" "$(option list "$@")" "$(option classes "$@")" "$(option out "$@")"
step -- "$PYTHON" tools/shard.py --workers "$SLURM_CPUS_PER_TASK" \
    --task "$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT" "$@"
