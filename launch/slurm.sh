#!/usr/bin/env bash
#SBATCH --job-name=longshort
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# One Ray node on every node of a Slurm allocation, and `longshort` on the first of them. From the repository's root:
#
#   sbatch --nodes=4 --gpus-per-node=8 --exclusive launch/slurm.sh train --config-name longshort_14b_1.5b key=value
#   launch/slurm.sh --dry-run train …       print what it would do; works outside Slurm too
#
# Ahead of the time limit Slurm sends USR1 (`sbatch --signal=B:USR1@SECONDS`, longer than a step takes): the run saves
# after the step under way, and the job requeues itself and goes on, with the same wandb run. `scancel` ends it for good.
#
# Settings, all from the environment:
#   VENV            virtual environment on every node; by default .venv where there is one
#   PROGRAM         what runs on the first node; by default `python -m longshort.cli`
#   CONTAINER       image of every node: *.sif goes to `apptainer exec`, anything else to `srun --container-image` (pyxis)
#   MOUNTS          host:container,… for either
#   DEVICES         devices that Ray counts on a node; by default Slurm's GPUs, else what Ray finds. CPU runs need it
#   ADDRESS         the first node's address in the network that Ray should use; a job of one node uses loopback
#   TMP_ROOT        where each node keeps Ray's files; short and local, by default /tmp
#   OBJECT_STORE    bytes of Ray's object store on a node; by default 30% of its memory
#   NODES_WITHIN    seconds within which all nodes must join; by default 300
#   SAVE_WITHIN     seconds that a run has to save in before it is requeued all the same; by default 100
set -euo pipefail
umask 077

readonly STOPPED_EARLY=75 KILLED_BY_USR1=138
# Blocks of ports, one per job, below the kernel's ephemeral range (32768): the head's, then those of workers.
readonly FIRST_PORT=10240 PORTS_PER_JOB=256 BLOCKS=88

say() { printf 'slurm.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 2; }

dry_run=false
if [[ ${1:-} == --dry-run ]]; then
    dry_run=true
    shift
fi
[[ $# -gt 0 || -n ${PROGRAM:-} ]] || fail "says not what to run; give a command of longshort, as: train --config-name local"

if $dry_run; then
    job=${SLURM_JOB_ID:-0}
    nodes=${SLURM_JOB_NUM_NODES:-1}
    names=(node{1..1})
    [[ $nodes == 1 ]] || mapfile -t names < <(seq -f 'node%g' "$nodes")
else
    [[ -n ${SLURM_JOB_ID:-} ]] || fail "runs inside a Slurm job; submit it with sbatch, or try launch/slurm.sh --dry-run"
    job=$SLURM_JOB_ID
    mapfile -t names < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    nodes=${#names[@]}
fi
head=${names[0]}

if [[ -z ${VENV:-} && -d .venv ]]; then VENV=$PWD/.venv; fi
if [[ -n ${VENV:-} ]]; then export PATH=$VENV/bin:$PATH; fi
read -r -a program <<<"${PROGRAM:-python -m longshort.cli}"

# A cluster of the shell that submitted this job is not ours.
unset RAY_ADDRESS RAY_AUTH_TOKEN
temp=${TMP_ROOT:-/tmp}/longshort-$UID-$job
port=$((FIRST_PORT + job % BLOCKS * PORTS_PER_JOB))
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$temp/token RAY_USAGE_STATS_ENABLED=0
# A node that is told to end would first offer its work to others, for 30 s, which is as long as Slurm waits.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0

# One node needs no network, and who is in it does not reach loopback.
if [[ $nodes == 1 && -z ${ADDRESS:-} ]]; then
    ADDRESS=127.0.0.1
    # Else Ray takes the address of a network card in its place.
    export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
    export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo} NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-lo}
fi

head_address() {
    local address
    address=${ADDRESS:-$(getent ahostsv4 "$(hostname)" | awk '{print $1; exit}')}
    # Debian gives a host's own name a loopback address, which no other node can reach.
    if [[ $address == 127.* && -z ${ADDRESS:-} ]]; then address=$(hostname -I | awk '{print $1}'); fi
    printf '%s' "$address"
}
if $dry_run; then address=${ADDRESS:-ADDRESS-OF-$head}; else address=$(head_address); fi
[[ -n $address ]] || fail "finds no address of $head; set ADDRESS"
export RAY_ADDRESS=$address:$port

# in_image COMMAND…: the command, inside the container where there is one that apptainer runs
in_image() {
    if [[ ${CONTAINER:-} == *.sif ]]; then
        command=(apptainer exec --bind "$temp${MOUNTS:+,$MOUNTS}")
        [[ -z ${SLURM_GPUS_ON_NODE:-} ]] || command+=(--nv)
        command+=("$CONTAINER" "$@")
    else
        command=("$@")
    fi
}

# on NODES COUNT COMMAND…: one task on each of the nodes, with all that the job has there
on() {
    local list=$1 count=$2
    shift 2
    srun=(srun --overlap --nodes="$count" --ntasks="$count" --ntasks-per-node=1 --nodelist="$list" --cpu-bind=none --kill-on-bad-exit=0)
    if [[ -n ${CONTAINER:-} && ${CONTAINER:-} != *.sif && $1 != bash ]]; then
        srun+=(--container-image="$CONTAINER" --container-mounts="$temp,$PWD${MOUNTS:+,$MOUNTS}" --container-workdir="$PWD")
    fi
    in_image "$@"
    if [[ $1 == bash ]]; then command=("$@"); fi
    srun+=("${command[@]}")
}

# show COMMAND…: for --dry-run
show() { printf '%q ' "$@"; printf '\n'; }

join_with_commas() { local IFS=,; printf '%s' "$*"; }
all=$(join_with_commas "${names[@]}")
others=$(join_with_commas "${names[@]:1}")

# CPUs are only counted: every process on a device takes one, however few the node has.
devices=${DEVICES:-${SLURM_GPUS_ON_NODE:-}}
cpus=${SLURM_CPUS_ON_NODE:-1}
if [[ -n $devices && $cpus -lt $((16 * devices)) ]]; then cpus=$((16 * devices)); fi
ray_start=(
    ray start --block --disable-usage-stats --num-cpus="$cpus" --dashboard-agent-listen-port=0
    --min-worker-port=$((port + 2)) --max-worker-port=$((port + PORTS_PER_JOB - 1))
)
of_head=(--node-ip-address="$address" --port="$port" --ray-client-server-port=$((port + 1)) --include-dashboard=false)
[[ -z $devices ]] || ray_start+=(--num-gpus="$devices")
[[ -z ${OBJECT_STORE:-} ]] || ray_start+=(--object-store-memory="$OBJECT_STORE")

# Each node names itself, so that a missing one can be named, but its files by a number: names are too long for Ray's
# sockets. When the job is cancelled it removes the files itself, as no other step can start then. $0 is their folder.
# shellcheck disable=SC2016
start_as='files=$0/$1$SLURM_NODEID ended=false; shift; trap "ended=true; kill -TERM \$ray" TERM
"$@" --node-name="$SLURMD_NODENAME" --temp-dir="$files" & ray=$!
while kill -0 "$ray" 2>/dev/null; do wait "$ray"; code=$?; done
if $ended; then for _ in 1 2 3; do rm -rf "$0" && break; sleep 1; done; fi
exit "$code"'
# shellcheck disable=SC2016
prepare='umask 077; mkdir -p "$1" && [ -O "$1" ] && [ ! -h "$1" ] && chmod 700 "$1" && cat >"$1/token"'
# shellcheck disable=SC2016
remove='rm -rf "$1"'

pids=()
driver=
stopping=false

# With CONTAINER, `sh` of the image starts Ray; without, that of the node.
start_head() { on "$head" 1 sh -c "$start_as" "$temp" h "${ray_start[@]}" --head "${of_head[@]}"; }
start_others() { on "$others" $((nodes - 1)) sh -c "$start_as" "$temp" w "${ray_start[@]}" --address="$RAY_ADDRESS"; }
prepare_all() { on "$all" "$nodes" bash -c "$prepare" bash "$temp"; }
remove_all() { on "$all" "$nodes" bash -c "$remove" bash "$temp"; }
wait_for_nodes() { driver_command python -m workers.cluster --timeout "${NODES_WITHIN:-300}" "${names[@]}"; }

# answers: whether anything listens on the head's port
answers() { (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; }

# driver_command COMMAND…: on the first node, where this script runs; pyxis starts containers only through srun
driver_command() {
    if [[ -n ${CONTAINER:-} && ${CONTAINER:-} != *.sif ]]; then
        on "$head" 1 "$@"
        command=("${srun[@]}")
    else
        in_image "$@"
    fi
}

if $dry_run; then
    printf 'job %s on %s node(s): %s\n' "$job" "$nodes" "${names[*]}"
    printf 'ports %s to %s, files and token in %s on every node\n' "$port" $((port + PORTS_PER_JOB - 1)) "$temp"
    prepare_all; show "${srun[@]}"
    start_head; show "${srun[@]}"
    if [[ $nodes -gt 1 ]]; then start_others; show "${srun[@]}"; fi
    wait_for_nodes; show "${command[@]}"
    driver_command "${program[@]}" "$@"; show "${command[@]}"
    printf 'on USR1: the run saves and ends with %s, then: scontrol requeue %s\n' "$STOPPED_EARLY" "$job"
    remove_all; show "${srun[@]}"
    exit 0
fi

clean_up() {
    trap - EXIT
    trap '' USR1 TERM INT
    local pid
    for pid in ${driver:+"$driver"} "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for _ in {1..20}; do
        [[ -n $(jobs -rp) ]] || break
        sleep 1
    done
    for pid in $(jobs -rp); do kill -KILL "$pid" 2>/dev/null || true; done
    remove_all
    "${srun[@]}" </dev/null || [[ ! -e $temp ]] || say "could not remove $temp on every node"
}

# shellcheck disable=SC2317,SC2329 # called by trap
stop_soon() {
    stopping=true
    say "asked to stop: the run saves after the step under way"
    [[ -z $driver ]] || kill -USR1 "$driver" 2>/dev/null || true
}
# shellcheck disable=SC2317,SC2329 # called by trap
stop_now() {
    say "terminated"
    exit 143
}
# Jobs of one block may meet on a node, and the other's Ray would be taken for this one's.
if answers; then
    say "port $port of $head is taken by another program; submit the job again"
    exit 1
fi
trap clean_up EXIT
trap stop_soon USR1
trap stop_now TERM INT

say "job $job on ${names[*]}, ports from $port, files in $temp"
token=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
prepare_all
printf '%s' "$token" | "${srun[@]}" || { say "could not prepare $temp on every node"; exit 1; }
unset token

start_head
"${srun[@]}" </dev/null >&2 &
pids+=($!)
ready=false
for ((waited = 0; waited < ${NODES_WITHIN:-300}; waited++)); do
    if answers; then ready=true; break; fi
    kill -0 "${pids[0]}" 2>/dev/null || { say "Ray did not start on $head; its output above says why"; exit 1; }
    sleep 1
done
$ready || { say "Ray does not answer on $head at $RAY_ADDRESS"; exit 1; }
if [[ $nodes -gt 1 ]]; then
    start_others
    "${srun[@]}" </dev/null >&2 &
    pids+=($!)
fi
wait_for_nodes
"${command[@]}" </dev/null || { say "the nodes did not join Ray at $RAY_ADDRESS; the output above says why"; exit 1; }

driver_command "${program[@]}" "$@"
if ! $stopping; then
    "${command[@]}" </dev/null &
    driver=$!
    # Asked meanwhile, when there was nobody to pass it on to.
    if $stopping; then kill -USR1 "$driver" 2>/dev/null || true; fi
fi

# wait returns when a signal is handled, so it is asked again until the driver is gone.
code=$KILLED_BY_USR1
saved_by=
while [[ -n $driver ]]; do
    code=0
    if $stopping; then
        [[ -n $saved_by ]] || saved_by=$((SECONDS + ${SAVE_WITHIN:-100}))
        if ! kill -0 "$driver" 2>/dev/null; then wait "$driver" || code=$?; break; fi
        if [[ $SECONDS -ge $saved_by ]]; then
            say "the run did not save in time; it goes on from its newest checkpoint"
            code=$STOPPED_EARLY
            break
        fi
        sleep 1
    else
        wait "$driver" || code=$?
        $stopping || break
    fi
done

if $stopping && [[ $code == "$STOPPED_EARLY" || $code == "$KILLED_BY_USR1" ]]; then
    clean_up
    say "requeues itself"
    scontrol requeue "$job"
    # Slurm ends this script now; without an end of our own the job would count as finished.
    sleep 60
fi
exit "$code"
