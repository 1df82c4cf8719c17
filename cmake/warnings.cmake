# quell_flags: what every file of ours is compiled with, and nobody else's.
add_library(quell_flags INTERFACE)
target_compile_features(quell_flags INTERFACE cxx_std_20)
target_compile_options(quell_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wundef -Wcast-align -Wnon-virtual-dtor -Woverloaded-virtual
  -Wformat=2
  # Fused multiply-add is written, never inferred: compilers differ in when they fuse, and results
  # must be the same bits everywhere.
  -ffp-contract=off
  # Two of GCC 12's warnings are false wherever the code is right: overlapping copies in every string
  # literal + std::string, and uninitialized members in every moved Result (a union and its tag).
  # Clang's double-promotion, unlike GCC's, warns of every float handed to a parameter that is double.
  $<$<CXX_COMPILER_ID:GNU>:-Wdouble-promotion -Wduplicated-cond -Wlogical-op -Wno-restrict -Wno-maybe-uninitialized>
  $<$<BOOL:${QUELL_WERROR}>:-Werror>)
if(QUELL_SANITIZE)
  # Not vptr: it asks RTTI, which the kernels are compiled without, wherever a test meets a class of theirs.
  target_compile_options(quell_flags INTERFACE -fsanitize=address,undefined -fno-sanitize=vptr
                         -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(quell_flags INTERFACE -fsanitize=address,undefined)
endif()
if(QUELL_CHECKED)
  target_compile_definitions(quell_flags INTERFACE QUELL_CHECKED)
endif()
if(QUELL_FUZZ)
  # Coverage of the library guides the fuzzer; its main function is linked by the fuzz targets alone.
  target_compile_options(quell_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
