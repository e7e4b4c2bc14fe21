# shellcheck shell=bash
# Functions of the batch scripts in this folder. Slurm runs a copy of a batch script in its spool folder,
# so the script finds this file by SLURM_SUBMIT_DIR (or DSANET_HOME).
#
# Options of train.py, eval.py and tools/shard.py go on the command line, after the script's name.
# Settings of the site come from the environment, or from slurm/site.sh if that file exists:
#   PYTHON            the interpreter (.venv/bin/python; `python` inside a container)
#   CONTAINER         an image: *.sif runs with apptainer, any other with srun's --container-image (pyxis)
#   CONTAINER_MOUNTS  SRC:DST,... mounted besides the repository, the folders named on the command line
#                     and the scratch folder
#   SCRATCH           folder on the node's local disk to which shards are copied ($SLURM_TMPDIR, else a
#                     folder under $TMPDIR or /tmp that is removed at the end); `--loader.stage off` reads
#                     shards in place
#   MAX_RESTARTS      fail after this number of restarts (50), which ends a loop of failures
#   MASTER_ADDR, MASTER_PORT   host and port of rank 0 (the first node, a port computed from the job's id)
#   SRUN_ARGS         more options of srun
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

option() { # option NAME ARGS...: the value of the last "--NAME X" or "--NAME=X" in ARGS, or nothing
    local name=$1 value=
    shift
    while (($#)); do
        case $1 in
            "--$name") value=${2:-} ;;
            "--$name="*) value=${1#*=} ;;
        esac
        shift
    done
    echo "$value"
}

enter() { # go to the repository, read the site's settings, choose the Python
    cd "${DSANET_HOME:-$SLURM_SUBMIT_DIR}"
    set +u # scripts of module and conda read unset variables
    # shellcheck source=/dev/null
    [[ ! -f slurm/site.sh ]] || source slurm/site.sh
    set -u
    local default=$PWD/.venv/bin/python
    [[ -z ${CONTAINER:-} && -x $default ]] || default=python
    PYTHON=${PYTHON:-$default}
    SCRATCH=${SCRATCH:-${SLURM_TMPDIR:-}} OWN_SCRATCH=
    [[ -n $SCRATCH ]] || SCRATCH=${TMPDIR:-/tmp}/dsanet-$SLURM_JOB_ID OWN_SCRATCH=$SCRATCH
    export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    local restarts=${SLURM_RESTART_COUNT:-0}
    MAX_RESTARTS=${MAX_RESTARTS:-50}
    echo "job ${SLURM_JOB_ID} ($SLURM_JOB_NAME) on $SLURM_JOB_NODELIST, start $((restarts + 1)), $(date -Is)"
    ((restarts <= MAX_RESTARTS)) || fail "job $SLURM_JOB_ID was restarted $restarts times" \
        "(MAX_RESTARTS=$MAX_RESTARTS). Its log says why it ended; a larger MAX_RESTARTS allows more restarts."
}

check_layout() { # one task per GPU requested (--exclusive may allocate more GPUs)
    local tasks=${SLURM_NTASKS_PER_NODE:-} gpus=${SLURM_GPUS_PER_NODE:-}
    gpus=${gpus##*:} # without the type, as in h100:8
    [[ -z $tasks || -z $gpus || $tasks == "$gpus" ]] || fail "$tasks tasks but $gpus GPUs on each node:" \
        "one task drives one GPU. Give sbatch the same number twice: --ntasks-per-node=$gpus --gpus-per-node=$gpus"
}

rendezvous() { # export rank 0's host; if MASTER_PORT is not set, each task computes it from the job's id
    MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
    export MASTER_ADDR ${MASTER_PORT:+MASTER_PORT}
}

in_container() { # in_container PATH...: set up the steps to run inside CONTAINER and to see these paths
    SRUN_CONTAINER=() IN_CONTAINER=()
    [[ -n ${CONTAINER:-} ]] || return 0
    local mounts="$PWD:$PWD${CONTAINER_MOUNTS:+,$CONTAINER_MOUNTS}" folder
    for folder; do # its parent is mounted: the folder may not exist yet
        [[ -n $folder && $folder != *://* ]] || continue
        folder=$(realpath -m "$folder")
        [[ $folder != /*/* ]] || folder=${folder%/*} # but never /
        mounts+=",$folder:$folder"
    done
    if [[ $CONTAINER == *.sif ]]; then
        IN_CONTAINER=(apptainer exec --nv --bind "$mounts" --pwd "$PWD" "$CONTAINER")
    else
        SRUN_CONTAINER=(--container-image="$CONTAINER" --container-mounts="$mounts" --container-workdir="$PWD")
    fi
}

step() { # step SRUN-OPTIONS... -- COMMAND...: a job step; each output line begins with the rank
    local options=()
    while [[ $1 != -- ]]; do options+=("$1") && shift; done
    shift
    # SRUN_ARGS is unquoted: it is a list of words.
    # shellcheck disable=SC2086
    srun --label --kill-on-bad-exit=1 --wait=60 ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} \
        ${SRUN_ARGS:-} ${options[@]+"${options[@]}"} ${SRUN_CONTAINER[@]+"${SRUN_CONTAINER[@]}"} \
        ${IN_CONTAINER[@]+"${IN_CONTAINER[@]}"} "$@"
}

per_node() { # per_node COMMAND...: once on each node
    step --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 -- "$@"
}

check_nodes() { # check_nodes FOLDER...: fail unless each node has its GPUs and sees the folders
    # shellcheck disable=SC2016  # expanded on the node
    per_node bash -c '
        for folder; do
            [[ -d $folder || $folder == *://* ]] && continue
            echo "error: node $(hostname) does not see $folder; mount it, or sbatch --exclude=$(hostname)" >&2
            exit 1
        done
        requested=${SLURM_GPUS_PER_NODE##*:}
        [[ -n $requested ]] && command -v nvidia-smi >/dev/null || exit 0
        shown=$(nvidia-smi -L | grep -c ^GPU)
        ((shown >= requested)) && exit 0
        echo "error: node $(hostname) shows $shown of $requested GPUs: sbatch --exclude=$(hostname)" >&2
        exit 1' check "$@"
}

requeue() { # as the engine does, but outside the container, where scontrol is
    local python=$PYTHON
    [[ -z ${CONTAINER:-} ]] || python=python3
    "$python" dsanet/engine/launch/requeue.py "$MAX_RESTARTS"
}

train() { # train ARGS...: train.py, one task per GPU
    enter
    check_layout
    rendezvous
    local data out name=$SLURM_JOB_NAME-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
    name+=${SLURM_ARRAY_TASK_ID:+-$SLURM_ARRAY_TASK_ID}
    data=$(option data "$@")
    out=$(option out "$@")
    out=${out:-runs/$name}
    [[ -n $data ]] || fail "--data is missing: sbatch [options] slurm/NAME.sh --data SHARDS --out RUN"
    mkdir -p "$(dirname "$out")"
    local limit
    limit=$(option runtime.max_requeues "$@")
    MAX_RESTARTS=${limit:-$MAX_RESTARTS}
    in_container "$data" "$out" "$(option weights "$@")" "$(option resume "$@")" "$SCRATCH"
    trap 'leave $?' EXIT
    check_nodes "$data"
    step -- "$PYTHON" train.py --out "$out" --runtime.max_requeues "$MAX_RESTARTS" \
        --loader.scratch "$SCRATCH" "$@"
}

evaluate() { # evaluate ARGS...: eval.py, one task per GPU
    enter
    check_layout
    rendezvous
    local data checkpoint
    data=$(option data "$@")
    checkpoint=$(option checkpoint "$@")
    [[ -n $data && -n $checkpoint ]] || fail "--data or --checkpoint is missing:" \
        "sbatch [options] slurm/eval.sh --data SHARDS --checkpoint RUN"
    local run=$checkpoint
    [[ $run != *.pt ]] || run=$(dirname "$run") # scores are written to the run folder
    in_container "$data" "$checkpoint" "$run" "$(option out "$@")" "$SCRATCH"
    trap 'leave $?' EXIT
    check_nodes "$data" "$(dirname "$checkpoint")"
    step -- "$PYTHON" eval.py --loader.scratch "$SCRATCH" "$@"
}

leave() { # leave RC: requeue a job that could not requeue itself, or remove its scratch folder on the nodes
    local rc=$1
    # 138 = 128 + SIGUSR1, the warning signal: the tasks were still starting, have no scontrol (in a
    # container), or evaluate. If the trainer has requeued the job, Slurm ends this script in the pause.
    if ((rc == 138)) && sleep 5 && requeue; then
        sleep 60 # until Slurm ends this script
    elif [[ -n $OWN_SCRATCH && $rc != 143 ]]; then
        per_node rm -rf "$OWN_SCRATCH" || true
    fi
}
