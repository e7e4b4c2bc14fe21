#!/usr/bin/env bash
# Training, then its evaluation: two jobs, the second starts when the first has ended well.
#   slurm/chain.sh [options of sbatch] slurm/k400.sh --data SHARDS --out runs/k400 [options of train.py]
# Run it on the login node, in the repository. Environment:
#   EVAL_SBATCH   options of sbatch for the evaluation alone, e.g. "--nodes=1 --time=2:00:00"
#   EVAL_ARGS     options of eval.py, e.g. "--clips 10"
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=slurm/common.sh
source slurm/common.sh

sbatch_options=()
while (($#)) && [[ $1 != *.sh ]]; do sbatch_options+=("$1") && shift; done
(($#)) || fail "which script? slurm/chain.sh [options of sbatch] slurm/k400.sh --data SHARDS --out RUN"
data=$(option data "$@")
out=$(option out "$@")
[[ -n $data && -n $out ]] || fail "--data or --out is missing: the evaluation must know both"

train=$(sbatch --parsable ${sbatch_options[@]+"${sbatch_options[@]}"} "$@")
train=${train%%;*} # "ID;CLUSTER" on a federation
# Lists of words on purpose.
# shellcheck disable=SC2086
eval=$(sbatch --parsable ${sbatch_options[@]+"${sbatch_options[@]}"} ${EVAL_SBATCH:-} \
    --dependency="afterok:$train" --kill-on-invalid-dep=yes \
    slurm/eval.sh --data "$data" --checkpoint "$out" ${EVAL_ARGS:-})
echo "training is job $train, evaluation job ${eval%%;*}: squeue -j $train,${eval%%;*}"
