#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the Debian packages that quell is built from, those that are missing; with everything in
# place it does nothing and needs no network. Usage: cmake/setup.sh [--tests | --full]
# --tests adds Chromium, in which a test looks at the report; without it that test is skipped, so if it
#         cannot be installed the set-up says so and goes on.
# --full  adds what tests/run.sh --full needs besides: Clang, its OpenMP and its sanitizer and fuzzing
#         runtimes; a cross compiler and an emulator for AArch64.
set -euo pipefail

packages=(g++ cmake ninja-build pkg-config libeigen3-dev libfmt-dev libgtest-dev libbenchmark-dev
          nlohmann-json3-dev libcli11-dev libpcre2-dev libutf8proc-dev)
optional=()
case "${1:-}" in
  "") ;;
  --tests) optional=(chromium) ;;
  --full) packages+=(clang-14 libomp-14-dev libclang-rt-14-dev googletest g++-aarch64-linux-gnu qemu-user)
            optional=(chromium) ;;
  *) echo "setup.sh: unknown argument '$1'; usage: cmake/setup.sh [--tests | --full]" >&2; exit 2 ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "setup.sh: this is no Debian system; install yourself what these packages hold, then build" >&2
  echo "  with cmake: ${packages[*]}" >&2
  exit 1
fi

# missing_of PACKAGE...: those that are not installed, into the array `missing`.
missing_of() {
  local package state
  missing=()
  for package in "$@"; do
    state=$(dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | sort -u || true)
    # A package of several architectures has several lines; one installed is enough.
    grep -qx installed <<<"$state" || missing+=("$package")
  done
}
as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "$@" "${missing[@]}" >"$log" 2>&1 </dev/null
}

missing_of "${packages[@]}"
if [ ${#missing[@]} -ne 0 ]; then
  if [ ${#as_root[@]} -ne 0 ] && ! command -v sudo >/dev/null; then
    echo "setup.sh: missing packages: ${missing[*]}" >&2
    echo "  Neither root nor sudo is at hand; as root run: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "setup.sh: installing ${missing[*]}"
  # The package lists of a bare system are absent and those of an old one name files that are gone;
  # only then are they fetched.
  if ! install; then
    if ! "${as_root[@]}" apt-get update -q >"$log" 2>&1 || ! install; then
      echo "setup.sh: apt-get could not install ${missing[*]}; it said:" >&2
      tail -n 20 "$log" >&2
      exit 1
    fi
  fi
fi

missing_of ${optional[@]+"${optional[@]}"}
if [ ${#missing[@]} -ne 0 ]; then
  echo "setup.sh: installing ${missing[*]}, which tests can do without"
  # Nobody waits long for what is not needed.
  patience=(-o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10)
  if ! install "${patience[@]}" &&
     { ! "${as_root[@]}" apt-get update -q "${patience[@]}" >"$log" 2>&1 ||
       ! install "${patience[@]}"; }; then
    echo "setup.sh: not installed: ${missing[*]}; the tests that use it are skipped"
  fi
fi
