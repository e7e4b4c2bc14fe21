#!/usr/bin/env bash
# Queues two jobs: training, and its evaluation, which starts when training has succeeded.
#   slurm/chain.sh [options of sbatch] slurm/k400.sh --data SHARDS --out runs/k400 [options of train.py]
# Run it in the repository, on the login node. Environment variables:
#   EVAL_SBATCH   more options of sbatch for the evaluation, e.g. "--nodes=1 --time=2:00:00"
#   EVAL_ARGS     options of eval.py, e.g. "--clips 10"
set -euo pipefail
cd -- "$(dirname -- "$0")/.."
# shellcheck source=slurm/common.sh
source slurm/common.sh

check_words "the command line" "$@"
split EVAL_SBATCH
eval_sbatch=(${WORDS[@]+"${WORDS[@]}"})
split EVAL_ARGS
eval_arguments=(${WORDS[@]+"${WORDS[@]}"})
sbatch_options=()
while (($#)) && [[ $1 != *.sh ]]; do sbatch_options+=("$1") && shift; done
(($#)) || fail "no script is named: slurm/chain.sh [options of sbatch] slurm/k400.sh --data SHARDS --out RUN"
data=$(option data "$@")
out=$(option out "$@")
[[ -n $data && -n $out ]] || fail "--data or --out is missing: the evaluation needs both"

train=$(sbatch --parsable ${sbatch_options[@]+"${sbatch_options[@]}"} "$@")
train=${train%%;*} # "ID;CLUSTER" on a federation
[[ $train =~ ^[0123456789]+$ ]] || fail "sbatch printed no job id; the evaluation is not queued"
evaluation=$(sbatch --parsable ${sbatch_options[@]+"${sbatch_options[@]}"} ${eval_sbatch[@]+"${eval_sbatch[@]}"} \
    --dependency="afterok:$train" --kill-on-invalid-dep=yes \
    slurm/eval.sh --data "$data" --checkpoint "$out" ${eval_arguments[@]+"${eval_arguments[@]}"})
evaluation=${evaluation%%;*}
echo "training is job $train, evaluation job $evaluation: squeue -j $train,$evaluation"
