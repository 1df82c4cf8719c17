#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds quell and runs its tests. Usage: tests/run.sh [--full]
#   (nothing)  set-up, Release build, every test but those labelled `slow`
#   --full     adds the slow tests, lower instruction sets, a Debug build with sanitizers, a Clang build,
#              the runtime without exceptions and RTTI, a processor without wide instructions and one of
#              AArch64 in an emulator, and every fuzz target for a minute
# Logs are in build/logs. The last line is `N passed, N failed, N skipped`: test cases, summed over all
# runs, where a step that breaks counts as one failed case. Exit status 0 if none failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

full=no
case "${1:-}" in
  "") ;;
  --full) full=yes ;;
  *) echo "run.sh: unknown argument '$1'; usage: tests/run.sh [--full]" >&2; exit 2 ;;
esac

jobs=$(nproc)
logs=build/logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0
# Seconds that a fuzz target runs.
fuzz_seconds=60

finish() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
  exit
}

# The log of a step: its name in words joined by dashes.
log_of() { tr -cs '[:alnum:]\n' '-' <<<"$1" | sed "s|.*|$logs/&.log|"; }

# step NAME COMMAND...: runs it with its output in a log, says how long it took; on failure shows the
# end of the log and counts one failed case.
step() {
  local name=$1 log started=$SECONDS status
  shift
  log=$(log_of "$name")
  "$@" >"$log" 2>&1 </dev/null
  status=$?
  printf '%-34s %5d s\n' "$name" $((SECONDS - started))
  if [ $status -ne 0 ]; then
    failed=$((failed + 1))
    # Ninja prefixes what broke with FAILED; the sentences that matter follow it.
    { grep -n -m 3 -A 12 -E '^FAILED|error:|^CMake Error' "$log" || tail -n 30 "$log"; } | head -n 60
    echo "  $name failed with status $status; all of its output: $log"
  fi
  return $status
}

# Adds up one CTest run: $1 its JUnit file, $2 the folder of the GoogleTest files. A program that wrote
# such a file counts by its cases; any other test counts as one. A program that failed after all its
# cases passed (a leak, say) is one failed case more; one that died wrote nothing and is one.
tally() {
  local line name verdict file cases p f s
  while read -r verdict name; do
    file="$2/$name.xml"
    if [ -f "$file" ]; then
      cases=$(awk '/<testcase /{n++} /result="skipped"/{s++} /result="suppressed"/{d++} /<failure /{if (n != last) f++; last = n}
                   END {print n - s - d - f, f + 0, s + 0}' "$file")
      read -r p f s <<<"$cases"
      if [ "$verdict" = failed ] && [ "$f" -eq 0 ]; then f=1; fi
    else
      p=0 f=0 s=0
      case $verdict in
        passed) p=1 ;;
        skipped) s=1 ;;
        *) f=1 ;;
      esac
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  done < <(awk '
    function flush() { if (name != "") print verdict, name; name = "" }
    /<testcase / { flush(); match($0, / name="[^"]*"/); name = substr($0, RSTART + 7, RLENGTH - 8)
                   verdict = /status="run"/ ? "passed" : "failed" }
    # Other reasons not to run (a missing program, a failed fixture) are failures.
    /<skipped message="SKIP_/ { verdict = "skipped" }
    /<failure/ { verdict = "failed" }
    END { flush() }' "$1")
}

# Says once, with a count, why cases were skipped.
skip_reasons() {
  # The message is file:line, an escaped newline, then the reason.
  cat "$1"/*.xml 2>/dev/null | sed -n 's/.*<skipped message="\([^"]*\)".*/\1/p' |
    sed 's/^[^&]*&#x0A;//; s/&apos;/'"'"'/g; s/&quot;/"/g; s/&lt;/</g; s/&gt;/>/g; s/&#x0A;/ /g; s/&amp;/\&/g' |
    sort | uniq -c | sort -rn | head -n 10 | sed 's/^ *\([0-9]*\) /  skipped \1: /'
}

# tests NAME BUILD CTEST-ARGUMENTS...: one CTest run in a build folder.
tests() {
  local name=$1 build=$2 results=$2/test-results junit=$2/ctest.xml log started=$SECONDS
  shift 2
  log=$(log_of "$name")
  rm -rf "$results" "$junit"
  mkdir -p "$results"
  # Several programs share the cores: a thread that spins while it waits takes one from another.
  OMP_WAIT_POLICY=passive ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$jobs" \
    --output-junit "$PWD/$junit" "$@" >"$log" 2>&1 </dev/null
  local status=$?
  printf '%-34s %5d s\n' "$name" $((SECONDS - started))
  if [ ! -s "$junit" ]; then
    failed=$((failed + 1))
    tail -n 20 "$log"
    return 1
  fi
  local before=$failed
  tally "$junit" "$results"
  if [ $status -ne 0 ]; then
    # CTest and the counts must agree that something failed.
    [ "$failed" -gt "$before" ] || failed=$((failed + 1))
    grep -v -E '^ +Start +[0-9]+:|Passed +[0-9.]+ sec|^$' "$log" | head -n 200
    echo "  all of the output: $log"
  fi
  skip_reasons "$results"
  return $status
}

# build_preset NAME PRESET TARGET...: configures a preset and builds targets of it.
build_preset() {
  local name=$1 preset=$2
  shift 2
  step "$name: configure" cmake --preset "$preset" -G Ninja &&
    step "$name: build" cmake --build "build/$preset" -j "$jobs" --target "$@"
}

if [ $full = yes ]; then
  bash cmake/setup.sh --full
else
  bash cmake/setup.sh --tests
fi || { failed=1; finish; }

build_preset release release all && tests "release: test" build/release -LE slow
if [ $full = no ]; then finish; fi

# From here on everything runs, whatever failed before: the long run should say all it can.
if [ -f build/release/build.ninja ]; then
  tests "release: slow tests" build/release -L slow
  for isa in scalar avx2; do
    leave_out=slow
    [ $isa = scalar ] && leave_out='slow|heavy'
    QUELL_ISA=$isa tests "release: test, capped to $isa" build/release -L fast -LE "$leave_out"
  done
fi

build_preset debug debug all && tests "debug with sanitizers: test" build/debug -LE slow
build_preset clang clang all && tests "clang: test" build/clang -LE slow

step "no exceptions: configure" cmake -S . -B build/noexcept -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DQUELL_TESTS=OFF -DQUELL_BENCH=OFF -DQUELL_EXAMPLES=OFF -DQUELL_WERROR=ON \
  "-DCMAKE_CXX_FLAGS=-fno-exceptions -fno-rtti" &&
  step "no exceptions: build" cmake --build build/noexcept -j "$jobs" --target quell_kernels quell_io &&
  passed=$((passed + 1))

# A processor of 2003, without any of the instructions that entries are written for: what starts and gives
# the laws' bits there never runs one by accident. (Masked loads beside a guard page fault in QEMU 7.2 but
# not on processors, so no later one is emulated.)
if command -v qemu-x86_64 >/dev/null; then
  step "baseline processor: kernel laws" qemu-x86_64 -cpu qemu64 build/release/tests/laws/kernel_laws_test --gtest_brief=1 &&
    passed=$((passed + 1))
  step "baseline processor: program" qemu-x86_64 -cpu qemu64 build/release/quell generate \
    examples/models/books7m --prompt "It was" --tokens 8 --temperature 0 && passed=$((passed + 1))
else
  echo "baseline processor: skipped, there is no qemu-x86_64"
  skipped=$((skipped + 2))
fi

step "aarch64: configure" cmake -S tests/kernels/aarch64 -B build/aarch64 -G Ninja -DCMAKE_TOOLCHAIN_FILE=toolchain.cmake &&
  step "aarch64: build" cmake --build build/aarch64 -j "$jobs" &&
  tests "aarch64: test" build/aarch64

if build_preset fuzz fuzz fuzz_targets; then
  while read -r target; do
    name=$(basename "$target")
    corpus="build/fuzz/corpus/$name"
    mkdir -p "$corpus"
    # The program adds its seeds to the corpus. A finding is written beside it, where the next run does
    # not read it.
    step "fuzz: $name" "$target" -max_total_time=$fuzz_seconds -rss_limit_mb=2048 -timeout=10 \
      -artifact_prefix="build/fuzz/$name-" "$corpus" &&
      passed=$((passed + 1))
  done < <(find build/fuzz/tests/fuzz -maxdepth 1 -type f -executable -name 'fuzz_*' 2>/dev/null | sort)
fi
finish
