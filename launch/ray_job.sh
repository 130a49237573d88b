#!/usr/bin/env bash
# Run `longshort` as a job of a Ray cluster. From the repository's root:
#
#   export RAY_API_SERVER_ADDRESS=http://head:8265 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=…
#   launch/ray_job.sh train --config-name longshort_qwen2.5_7b trainer.default_local_dir=/shared/runs/a
#
#   --no-wait       returns once the job is submitted; else it shows the job's log and ends with its exit code
#   --id NAME       the job's name; by default longshort-<time>
#   --dry-run       prints what it would do
#
# The sources travel (.rayignore), so that nodes need the dependencies only. Data, models and outputs do not: give paths
# that all nodes see. Keys do not either: `wandb login` and `hf auth login` on the node where the job runs.
set -euo pipefail

say() { printf 'ray_job.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 2; }

wait=true
dry_run=false
id=longshort-$(date -u +%Y%m%d-%H%M%S)-$$
while [[ $# -gt 0 ]]; do
    case $1 in
    --no-wait) wait=false ;;
    --dry-run) dry_run=true ;;
    --id)
        [[ -n ${2:-} ]] || fail "--id wants a name"
        id=$2
        shift
        ;;
    *) break ;;
    esac
    shift
done
[[ $# -gt 0 ]] || fail "says not what to run; give a command of longshort, as: train --config-name local"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
if [[ -d .venv ]]; then export PATH=$root/.venv/bin:$PATH; fi

address=${RAY_API_SERVER_ADDRESS:-${RAY_ADDRESS:-}}
[[ $address == http://* || $address == https://* ]] ||
    fail "RAY_API_SERVER_ADDRESS=$address is not the address of a cluster's dashboard, as http://head:8265"
# `ray.init` would read it here, where only the job may.
unset RAY_ADDRESS
export RAY_API_SERVER_ADDRESS=$address

# A job's working directory goes with the job, and so would what is written there, which is the default.
case $1 in
train | sft | demo) key=trainer.default_local_dir ;;
coldstart | distill | chunk | score | synthesize) key=coldstart.folder ;;
evaluate | behaviour) key=evaluation.folder ;;
reproduce | data | report) key=--out ;;
*) key= ;;
esac
if [[ -n $key ]]; then
    folder=
    before=
    for argument in "$@"; do
        # Hydra takes key=, +key= and ++key=, argparse --out= and --out with its value behind.
        if [[ $argument =~ ^[+]{0,2}"$key"=(.*)$ ]]; then folder=${BASH_REMATCH[1]}; fi
        if [[ $before == --out && $key == --out ]]; then folder=$argument; fi
        before=$argument
    done
    [[ $folder == /* ]] || fail "$key=$folder is not an absolute path; give one that outlives the job"
fi

submit=(
    ray job submit --no-wait --submission-id "$id" --working-dir "$root"
    --runtime-env-json '{"env_vars": {"PYTHONUNBUFFERED": "1"}}' -- python -m longshort.cli "$@"
)
if $dry_run; then
    printf '%q ' "${submit[@]}"
    printf '\n'
    exit 0
fi

python -m workers.upload "$root" "$@"
"${submit[@]}" >&2
say "job $id; end it with: ray job stop --address $address $id"
$wait || exit 0

trap 'say "the job goes on: ray job logs --follow $id"; exit 130' INT
ray job logs --follow "$id" || say "lost the log; asking for the exit code"
python -m workers.job_end "$id"
