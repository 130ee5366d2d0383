#!/bin/sh
# Install this distribution beside the harness, check its plugins, test it, and train a tiny model on its data.
# Usage: sh check.sh VENV HARNESS, from anywhere: VENV is made if it is not there, HARNESS is a checkout or a wheel.
set -eu
venv=$1 harness=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() {
    printf '\n$ %s\n' "$*"
    "$@"
}

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$harness" "$here[test]"
PATH="$(cd "$venv/bin" && pwd):$PATH"
export HARNESS_CACHE="$work/cache" TOKENIZERS_PARALLELISM=false

for plugin in addition polynomial program; do
    say harness plugins --check "scratchpad-$plugin"
done
say harness plugins --check scratchpad
cd "$here"
say python -m pytest -q -p no:cacheprovider

cd "$work"
say harness-scratchpad write scratchpad.jsonl --benchmark addition --lengths 2,3 --count 4000
say harness-scratchpad write direct.jsonl --benchmark addition --lengths 2,3 --count 4000 --no-scratchpad
say python "$here/recipes/tiny_model.py" base scratchpad.jsonl direct.jsonl
say harness train sft "$here/recipes/tiny.toml" --model base --out tuned

# One model, asked for the sum alone and with its work; the lengths it has learned, and a longer one.
for scratchpad in false true; do
    say harness run -b scratchpad-addition -m tuned -e transformers --out "runs/$scratchpad" \
        --set 'scratchpad-addition.lengths=[2, 3]' --set 'scratchpad-addition.longer=[4]' \
        --set scratchpad-addition.generation.max_tokens=150 --set "scratchpad-addition.scratchpad=$scratchpad"
done
say harness compare runs/false/*/*/* runs/true/*/*/*
harness compare --json runs/false/*/*/* runs/true/*/*/* | python -c '
import json, sys
[benchmark] = json.load(sys.stdin)["benchmarks"]
[gain] = benchmark["metrics"][0]["against_baseline"].values()
print("gain by the scratchpad: {value:.2f} [{low:.2f}, {high:.2f}]".format(**gain["estimate"]))
sys.exit(gain["estimate"]["low"] < 0.2)
'
