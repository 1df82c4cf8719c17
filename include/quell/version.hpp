// SPDX-License-Identifier: Apache-2.0
#pragma once

// The version of the headers; CMakeLists.txt reads it from here.
#define QUELL_VERSION "0.1.0"
