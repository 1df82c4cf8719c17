quell_bench(quantizers_bench SOURCES quantizers_bench.cpp MODULES quant)
target_link_libraries(quantizers_bench PRIVATE Eigen3::Eigen)
find_library(QUELL_OPENBLAS openblas)
if(QUELL_OPENBLAS)
  # A contender, never a dependency.
  target_compile_definitions(quantizers_bench PRIVATE QUELL_OPENBLAS)
  target_link_libraries(quantizers_bench PRIVATE ${QUELL_OPENBLAS})
endif()
