#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# From a clean checkout to a table: builds quell, then quantizes a small trained language model to 4 bits
# twice, by plain rounding and by gptq, and compares both with the original: size, perplexity, KL
# divergence, the largest outliers, and a sentence of each.
# Usage: examples/demo.sh [FOLDER]   (results stay in FOLDER, build/demo if none is named)
set -euo pipefail
here=$(pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-}" in
  "") out=build/demo ;;
  -*) echo "demo.sh: unknown argument '$1'; usage: examples/demo.sh [FOLDER]" >&2; exit 2 ;;
  /*) out=$1 ;;
  *) out=$here/$1 ;;
esac
mkdir -p "$out"

say() { printf '\n== %s\n' "$*"; }

# quell_ready: a program that is there already may be named (the tests do); else it is built.
if [ -n "${QUELL_PROGRAM:-}" ]; then
  quell=$QUELL_PROGRAM
else
  bash cmake/setup.sh
  say "building quell (the first time takes some minutes; log in $out/build.log)"
  if ! { cmake --preset release -G Ninja &&
         cmake --build build/release -j "$(nproc)" --target quell; } >"$out/build.log" 2>&1; then
    tail -n 30 "$out/build.log" >&2
    exit 1
  fi
  quell=$(find build/release -type f -name quell -perm -u+x | head -n 1)
fi

model=examples/models/books7m
calibration=examples/text/calibration.txt
evaluation=examples/text/evaluation.txt
prompt="It was a cold evening, and"

# field FILE KEY: the number or word after "KEY": in a JSON file. Keys that occur more than once are
# taken at their last place, where `eval` has its comparison.
field() { grep -o "\"$2\": *[^,}]*" "$1" | tail -n 1 | sed 's/^[^:]*: *//; s/"//g'; }
first_field() { grep -o "\"$2\": *[^,}]*" "$1" | head -n 1 | sed 's/^[^:]*: *//; s/"//g'; }

say "the model"
"$quell" inspect "$model"
"$quell" inspect "$model" --json >"$out/original-inspect.json"

for method in rtn gptq; do
  say "quantizing to 4 bits, groups of 32, with $method"
  calib=()
  [ $method = gptq ] && calib=(--calib "$calibration")
  "$quell" quantize "$model" -o "$out/$method" --method $method --scheme W4A16 --group-size 32 \
    "${calib[@]}" --force --json >"$out/$method-quantize.json"
done

say "evaluating on text that the model has never seen"
"$quell" eval "$model" --text "$evaluation" --json >"$out/original-eval.json"
for method in rtn gptq; do
  "$quell" eval "$out/$method" --text "$evaluation" --against "$model" --json >"$out/$method-eval.json"
done

say "one prompt: $prompt ..."
for name in original rtn gptq; do
  path=$out/$name
  [ $name = original ] && path=$model
  printf '%-10s ' "$name:"
  # One line, whatever the model writes.
  "$quell" generate "$path" --prompt "$prompt" --tokens 24 --temperature 0 2>/dev/null | tr '\n' ' '
  echo
done

say "result"
row='%-10s %12s %12s %12s %12s\n'
printf "$row" "" bytes perplexity "KL (nats)" "top-1 same"
printf "$row" original "$(first_field "$out/original-inspect.json" bytes)" \
  "$(printf %.3f "$(first_field "$out/original-eval.json" perplexity)")" - -
for method in rtn gptq; do
  printf "$row" "$method" "$(first_field "$out/$method-quantize.json" bytes)" \
    "$(printf %.3f "$(first_field "$out/$method-eval.json" perplexity)")" \
    "$(printf %.5f "$(field "$out/$method-eval.json" kl_mean)")" \
    "$(printf '%.2f %%' "$(awk "BEGIN{print 100 * $(field "$out/$method-eval.json" top1_agreement)}")")"
done
