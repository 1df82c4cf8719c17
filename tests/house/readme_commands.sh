#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# readme_commands.sh PROGRAM ROOT SCRATCH: runs the `sh` blocks of README.md, in order, in a folder
# that has examples/ as a checkout has; every command must succeed. Lines that a block shows after a
# command as its output do not belong in `sh` blocks.
set -euo pipefail
program=$1 root=$2 scratch=$3
rm -rf "$scratch"
mkdir -p "$scratch"
ln -s "$root/examples" "$scratch/examples"
awk '/^```sh *$/ { inside = 1; next } /^```/ { inside = 0 } inside' "$root/README.md" >"$scratch/commands.sh"
PATH=$(dirname "$program"):$PATH
cd "$scratch"
bash -euxo pipefail commands.sh
