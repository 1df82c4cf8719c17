# The link targets, smallest first, and their installation for find_package(quell) and pkg-config:
#
#   quell::headers  core, stats, grid, attention: headers, nothing to link
#   quell::runtime  + kernels and the readers of files: nothing of third parties to link
#   quell::quell    everything that is a library
#   quell::c        the C interface of the runtime: a shared library that needs no C++ to be linked
include(CMakePackageConfigHelpers)

get_property(quell_modules GLOBAL PROPERTY QUELL_MODULE_TARGETS)
# The command line is a program; nobody links it.
list(REMOVE_ITEM quell_modules quell_cli)
set(quell_runtime_modules)
foreach(module quell_kernels quell_io quell_capi)
  if(TARGET ${module})
    list(APPEND quell_runtime_modules ${module})
  endif()
endforeach()
set(quell_other_modules ${quell_modules})
list(REMOVE_ITEM quell_other_modules ${quell_runtime_modules})

add_library(quell_runtime INTERFACE)
target_link_libraries(quell_runtime INTERFACE quell_headers ${quell_runtime_modules})
set_target_properties(quell_runtime PROPERTIES EXPORT_NAME runtime)
add_library(quell_all INTERFACE)
target_link_libraries(quell_all INTERFACE quell_runtime ${quell_other_modules})
set_target_properties(quell_all PROPERTIES EXPORT_NAME quell)
add_library(quell::headers ALIAS quell_headers)
add_library(quell::runtime ALIAS quell_runtime)
add_library(quell::quell ALIAS quell_all)

# Somebody who builds quell inside a project of their own installs their own things.
if(NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()

set(quell_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quell)
# Two export sets: the runtime is found without the libraries that only the rest needs.
install(TARGETS quell_headers quell_runtime quell_c ${quell_runtime_modules} EXPORT quellRuntime
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT quellRuntime NAMESPACE quell:: FILE quellRuntime.cmake DESTINATION ${quell_package_dir})
install(TARGETS quell_all ${quell_other_modules} EXPORT quellRest
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT quellRest NAMESPACE quell:: FILE quellRest.cmake DESTINATION ${quell_package_dir})

set(quell_with_openmp OFF)
if(QUELL_OPENMP AND OpenMP_CXX_FOUND)
  set(quell_with_openmp ON)
endif()
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/quellConfig.cmake.in quellConfig.cmake
                              INSTALL_DESTINATION ${quell_package_dir})
write_basic_package_version_file(quellConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/quellConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/quellConfigVersion.cmake
        DESTINATION ${quell_package_dir})

install(DIRECTORY include/quell DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.hpp"
        PATTERN "*.h")
if(TARGET quell)
  install(TARGETS quell RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
# The demonstration model and its text, which `quell run` takes when no model is named; it looks for
# them at ../share/quell beside the program.
install(DIRECTORY examples/models examples/text DESTINATION ${CMAKE_INSTALL_DATADIR}/quell OPTIONAL)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# quell_pkgconfig(name description requires flags modules...): one .pc file. Static libraries are named
# before those that they need, so the modules, listed lowest first, are reversed.
function(quell_pkgconfig name description requires flags)
  set(libraries)
  foreach(module IN LISTS ARGN)
    list(PREPEND libraries -l${module})
  endforeach()
  list(JOIN libraries " " QUELL_PC_LIBRARIES)
  # Relative to the file itself, so that the installed tree can be moved.
  file(RELATIVE_PATH QUELL_PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
  string(REGEX REPLACE "/$" "" QUELL_PC_PREFIX ${QUELL_PC_PREFIX})
  set(QUELL_PC_NAME ${name})
  set(QUELL_PC_DESCRIPTION "${description}")
  set(QUELL_PC_REQUIRES "${requires}")
  set(QUELL_PC_FLAGS "${flags}")
  configure_file(${quell_SOURCE_DIR}/cmake/quell.pc.in ${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

set(openmp_flags)
if(quell_with_openmp)
  set(openmp_flags ${OpenMP_CXX_FLAGS})
endif()
quell_pkgconfig(quell-runtime "Outlier-aware quantization: kernels and readers" "" "" ${quell_runtime_modules})
quell_pkgconfig(quell-c "Outlier-aware quantization: the C interface" "" "" quell)
quell_pkgconfig(quell "Outlier-aware quantization of language models" "fmt libpcre2-8 libutf8proc"
                "${openmp_flags} -pthread" ${quell_modules})
