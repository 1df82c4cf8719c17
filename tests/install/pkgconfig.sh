#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# pkgconfig.sh COMPILER C-COMPILER PREFIX-OF-PKGCONFIG SOURCE-FOLDER SCRATCH: projects without CMake.
set -euo pipefail
compiler=$1 c_compiler=$2 pkgconfig=$3 sources=$4 scratch=$5
export PKG_CONFIG_PATH=$pkgconfig
mkdir -p "$scratch"
version=$(pkg-config --modversion quell)

"$compiler" -std=c++20 -fno-exceptions -fno-rtti "$sources/runtime_consumer.cpp" \
  $(pkg-config --cflags --libs quell-runtime) -o "$scratch/runtime"
"$scratch/runtime"

"$compiler" -std=c++20 "-DEXPECTED_VERSION=\"$version\"" "$sources/package_consumer.cpp" \
  $(pkg-config --cflags --libs quell) -o "$scratch/package"
"$scratch/package"

"$c_compiler" -std=c99 -Wall -Wextra -pedantic -Werror "$sources/c_consumer.c" \
  $(pkg-config --cflags --libs quell-c) -o "$scratch/c"
LD_LIBRARY_PATH=$(pkg-config --variable=libdir quell-c) "$scratch/c"
