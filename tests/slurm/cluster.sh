#!/usr/bin/env bash
# A temporary real Slurm on this machine: one controller and N nodes. Each node is a slurmd in its own
# network, host name and mount namespaces, with its own IP address, /etc/hosts and local disk.
#
#   cluster.sh up DIR [N]       boot N nodes n1..nN under DIR (a fresh folder with a short path)
#   cluster.sh kill-node DIR I  kill everything on node nI, as a power failure would
#   cluster.sh boot-node DIR I  boot node nI again
#   cluster.sh down DIR         stop everything (DIR stays, with the logs in log/)
#   cluster.sh clean            stop the cluster that runs or that a crashed test run left
#
# Root only. Needs slurmctld slurmd slurm-client munge iproute2 util-linux. Use it by hand with
# `export SLURM_CONF=DIR/etc/slurm.conf`. One cluster at a time: ports and namespaces have fixed names.
set -euo pipefail

NET=10.199.0 BRIDGE=dsanet0 NS=dsanet-n STATE=/run/dsanet-slurm

say() { echo "cluster.sh: $*" >&2; }

kill_node() { # kill every process in node $1's network namespace: daemon, steps and tasks
    local pid
    for pid in $(ip netns pids "$NS$1" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
}

boot_node() {
    # Not `ip netns exec`: it remounts /sys, and slurmd dies without the cgroup folder.
    nsenter --net="/run/netns/$NS$1" unshare --uts --mount --propagation private sh -c "
        hostname n$1
        mount --bind $DIR/etc/hosts /etc/hosts
        mount -t tmpfs none $DIR/local
        exec slurmd -N n$1 -f $SLURM_CONF"
}

write_files() { # write etc/ of a cluster of $1 nodes
    local i
    (umask 077 && head -c 1024 /dev/urandom >"$DIR/munge/key")
    for i in {0..7}; do mknod -m 666 "$DIR/dev/nvidia$i" c 1 3; done # fake GPUs: copies of /dev/null
    echo "AutoDetect=off
Name=gpu Type=h100 File=$DIR/dev/nvidia[0-7]" >"$DIR/etc/gres.conf"
    { echo "127.0.0.1 localhost" && echo "$NET.1 $(hostname -s)"; } >"$DIR/etc/hosts"
    for ((i = 1; i <= $1; i++)); do echo "$NET.1$i n$i" >>"$DIR/etc/hosts"; done
    # shellcheck disable=SC2016  # $SLURM_JOB_ID is the job's, expanded when the prolog runs
    {
        printf '#!/bin/sh\nmkdir -m 1777 -p %s/local/job_$SLURM_JOB_ID\n' "$DIR" >"$DIR/etc/prolog"
        printf '#!/bin/sh\nrm -rf %s/local/job_$SLURM_JOB_ID\n' "$DIR" >"$DIR/etc/epilog"
        printf '#!/bin/sh\necho export SLURM_TMPDIR=%s/local/job_$SLURM_JOB_ID\n' "$DIR" >"$DIR/etc/taskprolog"
    }
    chmod 755 "$DIR"/etc/*log
    write_conf "$1" >"$SLURM_CONF"
}

write_conf() { # print slurm.conf; unusual values replace defaults that fail here or wait for minutes
    local i signal='PreemptParameters=send_user_signal'
    [[ $(slurmctld -V) == *" 22."* ]] && signal='SlurmctldParameters=preempt_send_user_signal'
    # config_overrides:  nodes may claim more CPUs than the machine has
    # cred_expire=5:     a requeued job waits this long before it starts again (5 is the minimum)
    # KillWait, SlurmdTimeout: seconds from TERM to KILL, and until a dead node is noticed
    # MinJobAge:         the tests read `scontrol show job`, as there is no accounting
    cat <<CONF
ClusterName=dsanet
SlurmctldHost=$(hostname -s)($NET.1)
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$DIR/munge/sock,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
$signal
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=2
ReturnToService=2
SlurmdTimeout=10
MinJobAge=3600
PrologFlags=Alloc
Prolog=$DIR/etc/prolog
Epilog=$DIR/etc/epilog
TaskProlog=$DIR/etc/taskprolog
CONF
    for ((i = 1; i <= $1; i++)); do
        echo "NodeName=n$i NodeAddr=$NET.1$i CPUs=128 RealMemory=500000 TmpDisk=1000000 Gres=gpu:h100:8 Feature=h100 State=UNKNOWN"
    done
    echo "PartitionName=gpu Nodes=ALL Default=YES MaxTime=7-0 PriorityTier=1 GraceTime=30 State=UP"
    echo "PartitionName=urgent Nodes=ALL MaxTime=7-0 PriorityTier=10 State=UP"
}

wire() { # make a bridge on the host, and a namespace with an eth0 for each of $1 nodes
    local i
    ip link add "$BRIDGE" type bridge
    ip addr add "$NET.1/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    for ((i = 1; i <= $1; i++)); do
        ip netns add "$NS$i"
        ip link add "dsanet-v$i" type veth peer name eth0 netns "$NS$i"
        ip link set "dsanet-v$i" master "$BRIDGE" up
        ip -n "$NS$i" addr add "$NET.1$i/24" dev eth0
        ip -n "$NS$i" link set eth0 up
        ip -n "$NS$i" link set lo up
    done
}

up() {
    local nodes=$1 i
    if [[ -s $STATE ]]; then
        say "a cluster runs in $(<"$STATE"); \`cluster.sh clean\` stops it"
        exit 1
    fi
    mkdir -p "$DIR"/{etc,munge,state,log,spool,dev,local}
    chmod 755 "$DIR" "$DIR/munge"
    echo "$DIR" >"$STATE"
    write_files "$nodes"
    munged --key-file="$DIR/munge/key" --socket="$DIR/munge/sock" --pid-file="$DIR/munge/pid" \
        --log-file="$DIR/munge/log" --seed-file="$DIR/munge/seed" --num-threads=4
    wire "$nodes"
    slurmctld -f "$SLURM_CONF"
    for ((i = 1; i <= nodes; i++)); do boot_node "$i"; done
    for ((i = 0; i < 200; i++)); do
        (($(sinfo -h -N -p gpu -o %t 2>/dev/null | grep -c '^idle$') == nodes)) && return
        sleep 0.05
    done
    say "the nodes did not come up within 10 s"
    tail -n 20 "$DIR"/log/*.log >&2
    exit 1
}

stop_daemon() { # stop the process in pid file $1, if it is one of this cluster (its command names DIR)
    local pid
    [[ -s $1 ]] || return 0
    pid=$(<"$1")
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$DIR"; then kill "$pid" || true; fi
}

down() {
    local i
    timeout 5 scancel --user="$(id -un)" 2>/dev/null || true
    for ((i = 0; i < 50; i++)); do
        [[ -z $(timeout 2 squeue -h 2>/dev/null) ]] && break
        sleep 0.1
    done
    stop_daemon "$DIR/slurmctld.pid"
    unwire
    stop_daemon "$DIR/munge/pid"
    rm -f "$STATE"
}

unwire() { # remove the network, and kill what still runs on the nodes
    local ns
    for ns in $(ip netns list | awk -v ns="^$NS" '$1 ~ ns {print $1}'); do
        kill_node "${ns#"$NS"}"
        ip netns del "$ns"
    done
    ip link del "$BRIDGE" 2>/dev/null || true
}

clean() { # $STATE holds the folder of a cluster that was not taken down
    if [[ -s $STATE ]]; then
        local own=${DIR:-}
        DIR=$(<"$STATE") SLURM_CONF=$DIR/etc/slurm.conf
        [[ -d $DIR ]] && say "stopping the cluster in $DIR" && down
        DIR=$own SLURM_CONF=$own/etc/slurm.conf
    fi
    unwire
    rm -f "$STATE"
}

command=${1:?up, down, boot-node, kill-node or clean}
[[ $command == clean ]] || DIR=$(realpath -m -- "${2:?the folder of the cluster}")
# Both become part of scripts that root runs.
[[ ${DIR:-/} =~ ^/[A-Za-z0-9._/-]*$ ]] || { say "the folder may have letters, digits and ._/- only" && exit 2; }
[[ ${3:-3} =~ ^[123456789][0123456789]?$ ]] || { say "the number of nodes, or of a node, must be 1 to 99" && exit 2; }
export SLURM_CONF=${DIR:-}/etc/slurm.conf
case $command in
    up) up "${3:-3}" ;;
    down) down ;;
    boot-node) boot_node "$3" ;;
    kill-node) kill_node "$3" ;;
    clean) clean ;;
    *) say "unknown command $command" && exit 2 ;;
esac
