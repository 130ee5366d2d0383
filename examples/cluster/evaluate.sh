#!/bin/sh
# What is run once Ray is up, on any of its machines: kill it anywhere, and give it again.
# SHARED, MODEL, JUDGE and ENGINE may be set; REPLICAS is a number, or auto: all that the cluster has. Words that follow are
# for each `harness run`: sh evaluate.sh --limit 500
set -eu
SHARED=${SHARED:-/shared}
MODEL=${MODEL:-$SHARED/models/ckpt}
JUDGE=${JUDGE:-}
ENGINE=${ENGINE:-vllm}
REPLICAS=${REPLICAS:-auto}
ADDRESS=${RAY_ADDRESS:-auto}

harness run -b mmlu -b gsm8k -m "$MODEL" --data "$SHARED/data" --out "$SHARED/runs" \
    -e ray --set "ray.engine=$ENGINE" --set "ray.address=$ADDRESS" --set "ray.replicas=$REPLICAS" "$@"

if [ -n "$JUDGE" ]; then  # a judge that takes four GPUs a replica
    harness run -b alpaca_eval -m "$MODEL" --data "$SHARED/data" --out "$SHARED/runs" \
        -e ray --set "ray.engine=$ENGINE" --set "ray.address=$ADDRESS" --set "ray.replicas=$REPLICAS" \
        --judge "$JUDGE" --judge-engine ray --set judge.engine=vllm --set "judge.address=$ADDRESS" \
        --set judge.vllm.tensor_parallel_size=4 "$@"
fi
