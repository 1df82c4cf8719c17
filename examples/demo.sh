#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# From a clean checkout to a table: builds quell, then quantizes a small trained language model to 4 bits
# twice, by plain rounding and by the default method, and compares both with the original: size, perplexity, KL
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

# A program that is there already may be named (the tests do); else it is built.
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
  quell=build/release/quell
fi

model=examples/models/books7m
calibration=examples/text/calibration.txt
evaluation=examples/text/evaluation.txt
prompt="It was a cold evening, and"

# field FILE KEY: the value of a key that occurs once in a JSON file.
field() { grep -o "\"$2\": *[^,}]*" "$1" | head -n 1 | sed 's/^[^:]*: *//; s/"//g'; }
# against FILE KEY: the same inside the comparison with the original.
against() { tr -d '\n' <"$1" | grep -o '"against": *{.*' | grep -o "\"$2\": *[^,}]*" | head -n 1 | sed 's/^[^:]*: *//'; }
# largest FILE KIND KEY: the three tensors of a kind with the largest KEY, one line each; a tensor that
# was measured in parts stands once.
largest() {
  tr -d '\n' <"$1" | tr '{' '\n' | grep "\"kind\": *\"$2\"" | awk -v key="$3" '
    function value(name) { match($0, "\"" name "\": *[^,}]*"); s = substr($0, RSTART, RLENGTH)
                           sub(/^[^:]*: */, "", s); gsub(/"/, "", s); return s }
    { printf "%s %s %s %s\n", value(key), value("name"), value("absmax"), value("argmax_channel") }' |
    sort -g -r | awk '!seen[$2]++' | head -n 3 |
    awk -v key="$3" '{ printf "  %-38s largest |x| %8.2f in channel %d, %s %.1f\n", $2, $3, $4, key, $1 }'
}

say "the model"
"$quell" inspect "$model"
"$quell" inspect "$model" --json >"$out/original.json"

for method in rtn balanced; do
  say "quantizing to 4 bits, groups of 32, with $method; then evaluating on text that the model never saw"
  "$quell" run "$model" -o "$out/$method" --method "$method" --scheme W4A16 --group-size 32 \
    --calib "$calibration" --text "$evaluation" --force --json >"$out/$method.json" 2>"$out/$method.log" ||
    { status=$?; cat "$out/$method.log" >&2; exit $status; }
  echo "  written to $out/$method, report in $out/$method.json"
done

say "the largest outliers of the original"
echo "activations (inputs of linear layers), by the largest |x| over the median |x|:"
largest "$out/balanced.json" activation max_to_median
echo "weights, by excess kurtosis (0 for a normal distribution):"
largest "$out/balanced.json" weight excess_kurtosis

say "one prompt, continued by each (most likely tokens)"
for name in original rtn balanced; do
  path=$out/$name
  [ $name = original ] && path=$model
  printf '%-10s' "$name"
  # One line, whatever the model writes.
  "$quell" generate "$path" --prompt "$prompt" --tokens 24 --temperature 0 2>/dev/null | tr -s '\n' ' '
  echo
done

say "result"
printf '%-10s %12s %12s %12s %12s\n' "" bytes perplexity "KL (nats)" "same top"
printf '%-10s %12s %12.3f %12s %12s\n' original "$(field "$out/original.json" bytes)" \
  "$(against "$out/balanced.json" perplexity)" "" ""
for method in rtn balanced; do
  # The perplexity of the quantized model stands before the comparison.
  printf '%-10s %12s %12.3f %12.5f %10.2f %%\n' $method "$(field "$out/$method.json" bytes)" \
    "$(field "$out/$method.json" perplexity)" "$(against "$out/$method.json" kl_mean)" \
    "$(awk "BEGIN { print 100 * $(against "$out/$method.json" top1_agreement) }")"
done
