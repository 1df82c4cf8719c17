// SPDX-License-Identifier: Apache-2.0
#include "quell/kernels/isa.hpp"
