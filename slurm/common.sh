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
#
# site.sh is trusted as this file is; values of the command line and of the environment are not. Bash
# runs the $(...) in the text a[$(command)] wherever it evaluates that text as a number, so each number
# is compared with a pattern first. Values with control characters are refused.
set -euo pipefail

fail() {
    echo "error: $*" >&2
    exit 1
}

refuse() { # refuse NAME MUST VALUE: end with exit code 2, for a value that cannot work
    local LC_ALL=C # %q then escapes everything but printable ASCII
    printf 'error: %s must %s, got %q\n' "$1" "$2" "${3:0:200}" >&2
    exit 2
}

check_number() { # check_number NAME VALUE: refuse VALUE unless it is a plain decimal number
    [[ $2 =~ ^(0|[123456789][0123456789]{0,8})$ ]] ||
        refuse "$1" "be a whole number from 0 to 999999999" "$2"
}

check_text() { # check_text NAME VALUE: refuse a VALUE with control characters, such as a newline
    local LC_ALL=C c1=$'*\xc2[\x80-\x9f]*' # U+0080 to U+009F in UTF-8; a terminal may obey them
    # shellcheck disable=SC2053  # a pattern
    [[ $2 != *[[:cntrl:]]* && $2 != $c1 ]] || refuse "$1" "be text without control characters" "$2"
}

check_words() { # check_words NAME WORDS...: refuse words with control characters
    local name=$1 word
    shift
    for word; do check_text "each word of $name" "$word"; done
}

check_environment() { # refuse variables of Slurm, or of the user, that this script cannot use
    local name
    for name in SLURM_{JOB_ID,NNODES,CPUS_PER_TASK,NTASKS_PER_NODE,RESTART_COUNT} \
        SLURM_ARRAY_{JOB_ID,TASK_ID,TASK_MIN,TASK_COUNT} MASTER_PORT MAX_RESTARTS; do
        [[ -z ${!name:-} ]] || check_number "$name" "${!name}"
    done
    for name in SLURM_JOB_NAME SLURM_JOB_NODELIST PWD PYTHON SCRATCH MASTER_ADDR CONTAINER CONTAINER_MOUNTS; do
        check_text "$name" "${!name:-}"
    done
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
    printf '%s\n' "$value"
}

split() { # split NAME: put the words of the variable NAME into the array WORDS; * stays *
    read -r -d '' -a WORDS <<<"${!1:-}" || true # at the end of the text, `read` returns 1
    check_words "$1" ${WORDS[@]+"${WORDS[@]}"}
}

enter() { # enter ARGS...: go to the repository, read the site's settings, choose the Python
    check_words "the command line" "$@"
    cd -- "${DSANET_HOME:-$SLURM_SUBMIT_DIR}"
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
    check_environment
    echo "job ${SLURM_JOB_ID} ($SLURM_JOB_NAME) on $SLURM_JOB_NODELIST, start $((restarts + 1)), $(date -Is)"
    ((restarts <= MAX_RESTARTS)) || fail "job $SLURM_JOB_ID was restarted $restarts times" \
        "(MAX_RESTARTS=$MAX_RESTARTS). Its log says why it ended; a larger MAX_RESTARTS allows more restarts."
}

check_layout() { # one task per GPU requested (--exclusive may allocate more GPUs)
    local tasks=${SLURM_NTASKS_PER_NODE:-} gpus=${SLURM_GPUS_PER_NODE:-}
    gpus=${gpus##*:} # without the type, as in h100:8
    [[ -z $gpus ]] || check_number SLURM_GPUS_PER_NODE "$gpus"
    [[ -z $tasks || -z $gpus || $tasks == "$gpus" ]] || fail "$tasks tasks but $gpus GPUs on each node:" \
        "one task drives one GPU. Give sbatch the same number twice: --ntasks-per-node=$gpus --gpus-per-node=$gpus"
}

rendezvous() { # export rank 0's host; if MASTER_PORT is not set, each task computes it from the job's id
    MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
    export MASTER_ADDR ${MASTER_PORT:+MASTER_PORT}
}

check_mount() { # check_mount FOLDER: refuse a folder that a list of mounts, SRC:DST,..., would split
    [[ $1 != *[,:\\]* ]] || refuse "a folder that CONTAINER mounts" \
        "have no comma, colon or backslash in its path (rename or move it)" "$1"
}

in_container() { # in_container PATH...: set up the steps to run inside CONTAINER and to see these paths
    SRUN_CONTAINER=() IN_CONTAINER=()
    [[ -n ${CONTAINER:-} ]] || return 0
    check_mount "$PWD"
    local mounts="$PWD:$PWD${CONTAINER_MOUNTS:+,$CONTAINER_MOUNTS}" folder
    for folder; do # its parent is mounted: the folder may not exist yet
        [[ -n $folder && $folder != *://* ]] || continue
        folder=$(realpath -m -- "$folder")
        [[ $folder != /*/* ]] || folder=${folder%/*} # but never /
        check_mount "$folder"
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
    split SRUN_ARGS
    srun --label --kill-on-bad-exit=1 --wait=60 ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} \
        ${WORDS[@]+"${WORDS[@]}"} ${options[@]+"${options[@]}"} ${SRUN_CONTAINER[@]+"${SRUN_CONTAINER[@]}"} \
        ${IN_CONTAINER[@]+"${IN_CONTAINER[@]}"} "$@"
}

per_node() { # per_node COMMAND...: once on each node
    step --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 -- "$@"
}

check_nodes() { # check_nodes FOLDER...: fail unless each node has its GPUs and sees the folders
    local gpus=${SLURM_GPUS_PER_NODE:-}
    # shellcheck disable=SC2016  # expanded on the node
    per_node bash -c '
        requested=$1 # a number, or nothing
        shift
        for folder; do
            [[ -d $folder || $folder == *://* ]] && continue
            echo "error: node $(hostname) does not see $folder; mount it, or sbatch --exclude=$(hostname)" >&2
            exit 1
        done
        [[ -n $requested ]] && command -v nvidia-smi >/dev/null || exit 0
        shown=$(nvidia-smi -L | grep -c ^GPU)
        ((shown >= requested)) && exit 0
        echo "error: node $(hostname) shows $shown of $requested GPUs: sbatch --exclude=$(hostname)" >&2
        exit 1' check "${gpus##*:}" "$@"
}

requeue() { # as the engine does, but outside the container, where scontrol is
    local python=$PYTHON
    [[ -z ${CONTAINER:-} ]] || python=python3
    "$python" dsanet/engine/launch/requeue.py "$MAX_RESTARTS"
}

train() { # train ARGS...: train.py, one task per GPU
    enter "$@"
    check_layout
    rendezvous
    local data out name=${SLURM_JOB_NAME//\//-}-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID} # one folder, in runs
    name+=${SLURM_ARRAY_TASK_ID:+-$SLURM_ARRAY_TASK_ID}
    data=$(option data "$@")
    out=$(option out "$@")
    out=${out:-runs/$name}
    [[ -n $data ]] || fail "--data is missing: sbatch [options] slurm/NAME.sh --data SHARDS --out RUN"
    local limit
    limit=$(option runtime.max_requeues "$@")
    [[ -z $limit ]] || check_number runtime.max_requeues "$limit"
    MAX_RESTARTS=${limit:-$MAX_RESTARTS}
    in_container "$data" "$out" "$(option weights "$@")" "$(option resume "$@")" "$SCRATCH"
    mkdir -p -- "$(dirname -- "$out")"
    trap 'leave $?' EXIT
    check_nodes "$data"
    step -- "$PYTHON" train.py --out "$out" --runtime.max_requeues "$MAX_RESTARTS" \
        --loader.scratch "$SCRATCH" "$@"
}

evaluate() { # evaluate ARGS...: eval.py, one task per GPU
    enter "$@"
    check_layout
    rendezvous
    local data checkpoint
    data=$(option data "$@")
    checkpoint=$(option checkpoint "$@")
    [[ -n $data && -n $checkpoint ]] || fail "--data or --checkpoint is missing:" \
        "sbatch [options] slurm/eval.sh --data SHARDS --checkpoint RUN"
    local run=$checkpoint
    [[ $run != *.pt ]] || run=$(dirname -- "$run") # scores are written to the run folder
    in_container "$data" "$checkpoint" "$run" "$(option out "$@")" "$SCRATCH"
    trap 'leave $?' EXIT
    check_nodes "$data" "$(dirname -- "$checkpoint")"
    step -- "$PYTHON" eval.py --loader.scratch "$SCRATCH" "$@"
}

leave() { # leave RC: requeue a job that could not requeue itself, or remove its scratch folder on the nodes
    local rc=$1
    # 138 = 128 + SIGUSR1, the warning signal: the tasks were still starting, have no scontrol (in a
    # container), or evaluate. If the trainer has requeued the job, Slurm ends this script in the pause.
    if ((rc == 138)) && sleep 5 && requeue; then
        sleep 60 # until Slurm ends this script
    elif [[ -n $OWN_SCRATCH && $rc != 143 ]]; then
        per_node rm -rf -- "$OWN_SCRATCH" || true
    fi
}
