#!/usr/bin/env bash
# Slurm: a run on several nodes. Ray starts on all of them, the run on the first one; both end together.
#
#   sbatch docker/cluster/slurm.sh /shared/models --slo p99=40ms --budget 3h
#
# The arguments are those of `tritontune run`. On every node, `tritontune`, `ray` and a Triton are needed: an environment
# on a shared file system, or a container image (SRUN='--container-image=IMAGE' with pyxis). The first node reads the
# repository, and sends it to the others; add --repository-on-hosts /shared/models if all of them see it there.
#
# Change the lines below to your partition. Each node has one task, with all GPUs and cores of the node.
#SBATCH --job-name=tritontune
#SBATCH --nodes=2
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=04:00:00
# Two minutes before the time limit, the run writes the results so far; `--resume` goes on.
#SBATCH --signal=B:TERM@120
set -euo pipefail

# Here: module load, source activate, ...

# Who reaches the ports of Ray may run programs on the nodes, unless Ray asks for a token. Ray has it from 2.52 on.
RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python3 -c 'import secrets; print(secrets.token_hex(32))')
# How long the first node waits for the others, in s.
RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
RAY_USAGE_STATS_ENABLED=0
export RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT RAY_USAGE_STATS_ENABLED

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts%%$'\n'*}
export RAY_ADDRESS="$first:${RAY_PORT:-6379}"

# What the run tells this script, which is on the first node, too: its pid, and its exit code, as Ray's says nothing.
told=$(mktemp -d "$PWD/.tritontune-XXXXXX")
trap 'rm -rf "$told"' EXIT
trap 'kill -TERM "$(cat "$told/pid")"' TERM

# Without --cpus-per-task, Slurm binds each task to one core.
read -ra options <<< "${SRUN:-}"
# shellcheck disable=SC2016 # the inner shell expands them
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --cpus-per-task="$SLURM_CPUS_ON_NODE" \
    ${options[@]+"${options[@]}"} \
    ray symmetric-run --address "$RAY_ADDRESS" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
    bash -c 'tritontune run "${@:2}" --executor ray --parallel auto &
        echo $! > "$1/pid"; wait $!; echo $? > "$1/code"' _ "$told" "$@" &
while kill -0 $! 2> /dev/null; do
    wait $! || true
done
exit "$(cat "$told/code" || echo 1)"
