#!/bin/bash
# Ray on the machines of a Slurm job, and with it whatever command follows. The environment is activated, and all machines see it:
#
#   sbatch examples/cluster/slurm.sh sh examples/cluster/evaluate.sh
#
# When its time is over or a machine fails, it is queued again and goes on with what is missing; scancel ends it. The same line
# then goes on too, on any number of machines: options before the script's name have precedence over those below.
#SBATCH --job-name=harness
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

fail() { echo "slurm.sh: $*" >&2; exit 2; }
(($#)) || fail "give the command to run: sbatch slurm.sh sh examples/cluster/evaluate.sh"
command -v ray > /dev/null || fail "ray is not on the PATH: activate the environment, then sbatch"
# --requeue is for machines that fail; what has run out of time has to ask for it.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

export RAY_USAGE_STATS_ENABLED=0
# In /tmp/ray there may be files of somebody who had the machine before, which Ray would write to. Logs stay in this one.
export RAY_TMPDIR=/tmp/harness-$SLURM_JOB_ID
# A token for this job's machines alone. Without the mode, only the head would heed it, and refuse the others.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
# By Slurm's own notes srun has not gone by the job's --cpus-per-task from 22.05 on, and may bind a task to one core.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
others=$((SLURM_JOB_NUM_NODES - 1))
# As the last machine knows the first: to itself its name may be 127.0.1.1.
read -r address _ < <(srun --nodes=1 --ntasks=1 --overlap -w "${nodes[-1]}" getent ahostsv4 "$head") || fail "what is the address of $head?"
# Ports of this job's own: there may be another's Ray on the machine.
port=$((20000 + SLURM_JOB_ID % 5000 * 2))
export RAY_ADDRESS=$address:$port

srun --nodes=1 --ntasks=1 --overlap -w "$head" ray start --head --node-ip-address="$address" --port="$port" \
    --ray-client-server-port=$((port + 1)) --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false --block &
ray=$!
# `ray status` is content before the head can be given work.
until timeout 60 python -c 'import ray; ray.init()' > /dev/null 2>&1; do
    kill -0 "$ray" 2> /dev/null || fail "Ray does not start on $head; it has said why above"
    sleep 2
done
if ((others)); then
    # One that has not come up, or is lost, comes again, for as long as there is a head.
    srun --nodes="$others" --ntasks="$others" --overlap --exclude="$head" sh -c '
        until ray start --address="$RAY_ADDRESS" --num-cpus="$SLURM_CPUS_PER_TASK" --block; do
            sleep 5
            ray status > /dev/null 2>&1 || exit 1
        done' &
fi

# Where the machines come one after the other, replicas join as they do. A shell that waits can hear a signal.
"$@" &
wait $!
