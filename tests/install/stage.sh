#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# stage.sh CMAKE BUILD STAGE HAS-PROGRAM: installs a build, moves it (an installed tree has no fixed
# place) and looks at what came along.
set -euo pipefail
cmake=$1 build=$2 stage=$3 program=$4
rm -rf "$stage" "$stage.before"
"$cmake" --install "$build" --prefix "$stage.before" >/dev/null
mv "$stage.before" "$stage"

fail() { echo "$1" >&2; exit 1; }
[ -f "$stage/include/quell/version.hpp" ] || fail "no headers were installed"
[ -f "$stage/include/quell/quell.h" ] || fail "the header of the C interface was not installed"
# Neither the sources nor the build may be named by what was installed.
source=$(dirname "$(dirname "$(dirname "$(realpath "$0")")")")
if grep -rlF -e "$source" --include='*.cmake' --include='*.pc' --include='*.hpp' --include='*.h' "$stage"; then
  fail "these installed files name the source tree"
fi
if [ "$program" = yes ]; then
  "$stage/bin/quell" --version >/dev/null || fail "the installed program does not start"
  [ -f "$stage/share/quell/models/books7m/model.safetensors" ] || fail "no demonstration model"
  [ -f "$stage/share/quell/text/calibration.txt" ] || fail "no demonstration text"
fi
