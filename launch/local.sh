#!/usr/bin/env bash
# Train on this machine: `launch/local.sh key=value` is `longshort train key=value` with a Ray of its own.
#
# Ray and its servers listen on loopback only and end with the run. Several runs go side by side; each needs a folder of
# its own (trainer.default_local_dir or trainer.experiment_name) and, on GPUs, CUDA_VISIBLE_DEVICES of its own.
# Ctrl-C or TERM ends a run at once, USR1 after the step under way; the same command goes on from the newest checkpoint.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -d $root/.venv ]]; then export PATH=$root/.venv/bin:$PATH; fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
# A cluster that the shell knows of is for jobs that are submitted.
unset RAY_ADDRESS
exec python -m longshort.cli train "$@"
