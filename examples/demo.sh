#!/bin/sh
# The whole loop on a CPU: measure a base model, instruct it, measure, align it, measure, compare, report.
# Usage: sh examples/demo.sh FOLDER, with an environment in FOLDER/venv (`make demo` makes it). Twice gives the same
# figures on the same machine.
set -eu
here=$(dirname "$0")/demo
PATH="$1/venv/bin:$PATH"
folder=$1/world
[ -x "$1/venv/bin/harness" ] || { echo "no environment in $1/venv: run make demo" >&2; exit 2; }
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export OMP_NUM_THREADS=2 TOKENIZERS_PARALLELISM=false HARNESS_CACHE="$folder/cache"

say() {
    printf '\n$ %s\n' "$*"
    "$@"
}

rm -rf "$folder"
say python "$here/world.py" "$folder"

printf '\n$ python %s %s &\n' "$here/judge.py" "$port"
python "$here/judge.py" "$port" &
judge=$!
trap 'kill "$judge" 2>/dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

evaluate() {
    say harness run "$here/evaluate.toml" --model "$folder/$1" --data "$folder/data" --out "$folder/runs" \
        --judge rule --set "judge.base_url=http://127.0.0.1:$port/v1"
}

evaluate base
say harness train sft "$here/sft.toml" --model "$folder/base" --out "$folder/sft" \
    --set "sft.data=[\"$folder/train/demonstrations.jsonl\"]"
evaluate sft
say harness train dpo "$here/dpo.toml" --model "$folder/sft" --out "$folder/dpo" \
    --set "dpo.data=[\"$folder/train/harmless.jsonl.gz\", \"$folder/train/helpful.jsonl.gz\"]"
evaluate dpo

set -- "$folder"/runs/*/base/* "$folder"/runs/*/sft/* "$folder"/runs/*/dpo/*
say harness show "$folder"/runs/gsm8k/dpo/* --wrong --sample 1
say harness compare "$@"
say harness report "$@" --out "$folder/report.html" --force
printf '\nThe report: %s\n' "$folder/report.html"
