# shellcheck shell=bash
# What the batch scripts of this folder share. Sourced from the repository: a batch script itself runs
# from a copy in Slurm's spool folder and finds this file by SLURM_SUBMIT_DIR (or DSANET_HOME).
#
# Options of train.py, eval.py and tools/shard.py go on the command line, behind the script's name.
# What belongs to the site comes from the environment, or from slurm/site.sh if that file exists:
#   PYTHON            the interpreter (.venv/bin/python; `python` inside a container)
#   CONTAINER         an image: *.sif runs with apptainer, anything else is srun's --container-image (pyxis)
#   CONTAINER_MOUNTS  SRC:DST,... added to the repository, the folders named on the command line and
#                     the scratch folder
#   SCRATCH           where on the node's own disk the shards are copied ($SLURM_TMPDIR, else a folder under
#                     $TMPDIR or /tmp that is removed at the end); `--loader.stage off` reads them in place
#   MAX_RESTARTS      refuse to start more often than this (50): ends a loop of failures
#   MASTER_ADDR, MASTER_PORT   where ranks meet (the first node, a port from the job's id)
#   SRUN_ARGS         further options of srun
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

enter() { # to the repository, with the site's settings and its Python
    cd "${DSANET_HOME:-$SLURM_SUBMIT_DIR}"
    set +u # module and conda scripts read unset variables
    # shellcheck source=/dev/null
    [[ ! -f slurm/site.sh ]] || source slurm/site.sh
    set -u
    local own=$PWD/.venv/bin/python
    [[ -z ${CONTAINER:-} && -x $own ]] || own=python
    PYTHON=${PYTHON:-$own}
    SCRATCH=${SCRATCH:-${SLURM_TMPDIR:-}} OWN_SCRATCH=
    [[ -n $SCRATCH ]] || SCRATCH=${TMPDIR:-/tmp}/dsanet-$SLURM_JOB_ID OWN_SCRATCH=$SCRATCH
    export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    local restarts=${SLURM_RESTART_COUNT:-0}
    MAX_RESTARTS=${MAX_RESTARTS:-50}
    echo "job ${SLURM_JOB_ID} ($SLURM_JOB_NAME) on $SLURM_JOB_NODELIST, start $((restarts + 1)), $(date -Is)"
    ((restarts <= MAX_RESTARTS)) || fail "job $SLURM_JOB_ID was restarted $restarts times" \
        "(MAX_RESTARTS=$MAX_RESTARTS). See why in its log; a larger MAX_RESTARTS lets it go on."
}

check_layout() { # one task per GPU that was asked for (--exclusive may allocate more of them)
    local tasks=${SLURM_NTASKS_PER_NODE:-} gpus=${SLURM_GPUS_PER_NODE:-}
    gpus=${gpus##*:} # without the type, as in h100:8
    [[ -z $tasks || -z $gpus || $tasks == "$gpus" ]] || fail "$tasks tasks but $gpus GPUs on each node:" \
        "one task drives one GPU. Give sbatch the same number twice: --ntasks-per-node=$gpus --gpus-per-node=$gpus"
}

rendezvous() { # rank 0's host; the port, if none is set, is for each task to derive from the job's id
    MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
    export MASTER_ADDR ${MASTER_PORT:+MASTER_PORT}
}

in_container() { # in_container PATH...: what makes the steps run inside CONTAINER and see what is there
    SRUN_CONTAINER=() IN_CONTAINER=()
    [[ -n ${CONTAINER:-} ]] || return 0
    local mounts="$PWD:$PWD${CONTAINER_MOUNTS:+,$CONTAINER_MOUNTS}" folder
    for folder; do # its parent: the folder itself need not be there yet
        [[ -n $folder && $folder != *://* ]] || continue
        folder=$(realpath -m "$folder")
        [[ $folder != /*/* ]] || folder=${folder%/*} # but not all that there is
        mounts+=",$folder:$folder"
    done
    if [[ $CONTAINER == *.sif ]]; then
        IN_CONTAINER=(apptainer exec --nv --bind "$mounts" --pwd "$PWD" "$CONTAINER")
    else
        SRUN_CONTAINER=(--container-image="$CONTAINER" --container-mounts="$mounts" --container-workdir="$PWD")
    fi
}

step() { # step SRUN-OPTIONS... -- COMMAND...: a job step, its lines labelled with their rank
    local options=()
    while [[ $1 != -- ]]; do options+=("$1") && shift; done
    shift
    # SRUN_ARGS is a list of words on purpose.
    # shellcheck disable=SC2086
    srun --label --kill-on-bad-exit=1 --wait=60 ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} \
        ${SRUN_ARGS:-} ${options[@]+"${options[@]}"} ${SRUN_CONTAINER[@]+"${SRUN_CONTAINER[@]}"} \
        ${IN_CONTAINER[@]+"${IN_CONTAINER[@]}"} "$@"
}

per_node() { # per_node COMMAND...: once on each node
    step --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 -- "$@"
}

check_nodes() { # check_nodes FOLDER...: each node has its GPUs and sees the folders; bad nodes are named
    # shellcheck disable=SC2016  # expanded on the node
    per_node bash -c '
        for folder; do
            [[ -d $folder || $folder == *://* ]] && continue
            echo "error: node $(hostname) does not see $folder; mount it, or sbatch --exclude=$(hostname)" >&2
            exit 1
        done
        wanted=${SLURM_GPUS_PER_NODE##*:}
        [[ -n $wanted ]] && command -v nvidia-smi >/dev/null || exit 0
        shown=$(nvidia-smi -L | grep -c ^GPU)
        ((shown >= wanted)) && exit 0
        echo "error: node $(hostname) shows $shown of $wanted GPUs: sbatch --exclude=$(hostname)" >&2
        exit 1' check "$@"
}

requeue() { # the engine's requeueing, run outside the container: scontrol is there
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
    local cap
    cap=$(option runtime.max_requeues "$@")
    MAX_RESTARTS=${cap:-$MAX_RESTARTS} # of what `leave` requeues, too
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
    [[ $run != *.pt ]] || run=$(dirname "$run") # the scores go beside the run's checkpoints
    in_container "$data" "$checkpoint" "$run" "$(option out "$@")" "$SCRATCH"
    trap 'leave $?' EXIT
    check_nodes "$data" "$(dirname "$checkpoint")"
    step -- "$PYTHON" eval.py --loader.scratch "$SCRATCH" "$@"
}

leave() { # leave RC: requeue a job that could not do so itself, or remove what this script made on the nodes
    local rc=$1
    # 138 = 128 + SIGUSR1, the warning signal: the tasks were still starting, or have no scontrol, as
    # in a container, or evaluate. A trainer that did requeue the job ends this script within the pause.
    if ((rc == 138)) && sleep 5 && requeue; then
        sleep 60 # until Slurm ends this script
    elif [[ -n $OWN_SCRATCH && $rc != 143 ]]; then
        per_node rm -rf "$OWN_SCRATCH" || true
    fi
}
