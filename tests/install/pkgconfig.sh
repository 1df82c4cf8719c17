#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pkgconfig.sh COMPILER PREFIX-OF-PKGCONFIG SOURCE-FOLDER SCRATCH: two projects without CMake.
set -euo pipefail
compiler=$1 pkgconfig=$2 sources=$3 scratch=$4
export PKG_CONFIG_PATH=$pkgconfig
mkdir -p "$scratch"
version=$(pkg-config --modversion quell)

"$compiler" -std=c++20 -fno-exceptions -fno-rtti "$sources/runtime_consumer.cpp" \
  $(pkg-config --cflags --libs quell-runtime) -o "$scratch/runtime"
"$scratch/runtime"

"$compiler" -std=c++20 "-DEXPECTED_VERSION=\"$version\"" "$sources/package_consumer.cpp" \
  $(pkg-config --cflags --libs quell) -o "$scratch/package"
"$scratch/package"
