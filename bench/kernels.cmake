# Benchmarks of the kernels. Contenders are compiled for the machine at hand, which the library never is.
quell_bench(machine_bench SOURCES machine_bench.cpp MODULES kernels)

set(quell_contenders contenders/f32_eigen.cpp)
set(quell_contender_libraries Eigen3::Eigen)
if(OpenMP_CXX_FOUND)
  list(APPEND quell_contender_libraries OpenMP::OpenMP_CXX)
endif()
find_library(QUELL_OPENBLAS_LIBRARY openblas)
find_path(QUELL_OPENBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas
          x86_64-linux-gnu/openblas-pthread x86_64-linux-gnu)
if(QUELL_OPENBLAS_LIBRARY AND QUELL_OPENBLAS_INCLUDE_DIR)
  list(APPEND quell_contenders contenders/f32_openblas.cpp)
  list(APPEND quell_contender_libraries ${QUELL_OPENBLAS_LIBRARY})
endif()
quell_bench(gemm_bench SOURCES gemm_bench.cpp ${quell_contenders}
            MODULES kernels LIBRARIES ${quell_contender_libraries})
if(QUELL_OPENBLAS_LIBRARY AND QUELL_OPENBLAS_INCLUDE_DIR)
  target_include_directories(gemm_bench SYSTEM PRIVATE ${QUELL_OPENBLAS_INCLUDE_DIR})
  target_compile_definitions(gemm_bench PRIVATE QUELL_BENCH_OPENBLAS)
endif()
set_source_files_properties(contenders/f32_eigen.cpp PROPERTIES
  COMPILE_OPTIONS "-march=native;-ffp-contract=fast;-w")
quell_bench(stats_bench SOURCES stats_bench.cpp MODULES kernels)
quell_bench(quantized_bench SOURCES quantized_bench.cpp MODULES kernels)
quell_bench(rows_bench SOURCES rows_bench.cpp MODULES kernels)
quell_bench(attention_bench SOURCES attention_bench.cpp MODULES kernels)
