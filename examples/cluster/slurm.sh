#!/bin/bash
# Ray on the machines of a Slurm job, and the evaluation on it: sbatch examples/cluster/slurm.sh
# At a time limit give it again: it goes on with what is missing, on any number of machines.
#SBATCH --job-name=harness
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

export RAY_USAGE_STATS_ENABLED=0
# One token for this job's machines alone, which Ray asks for by itself from 2.60 on.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head=${nodes[0]}
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_ADDRESS=$head:$port

srun --nodes=1 --ntasks=1 --overlap -w "$head" \
    ray start --head --node-ip-address="$head" --port="$port" --include-dashboard=false --block &
until ray status > /dev/null 2>&1; do sleep 2; done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --overlap --exclude="$head" \
        ray start --address="$RAY_ADDRESS" --block &
fi

# Where the machines come one after the other, replicas join as they do.
srun --nodes=1 --ntasks=1 --overlap -w "$head" sh "$(dirname "$0")/evaluate.sh"
