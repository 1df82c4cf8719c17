# quell_module(name SOURCES ... [PRIVATE targets...] [STRICT_INTEGERS])
#
# One static library per module, quell_<name>, that links exactly the modules which layers.txt allows.
# STRICT_INTEGERS adds the warnings about narrowing, for the directories that read hostile files.

file(STRINGS ${CMAKE_CURRENT_LIST_DIR}/layers.txt quell_layers REGEX "^[a-z]+:")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
             ${CMAKE_CURRENT_LIST_DIR}/layers.txt)

# tests/house reads there with which flags every file is compiled.
set(CMAKE_EXPORT_COMPILE_COMMANDS ${PROJECT_IS_TOP_LEVEL})

# Modules that are headers alone: linking them is linking quell_headers.
set(QUELL_HEADER_MODULES core stats grid attention)
# Libraries that are headers alone: needed to compile ours, never by somebody who links ours.
set(QUELL_HEADER_LIBRARIES Eigen3::Eigen nlohmann_json::nlohmann_json CLI11::CLI11)

function(quell_module_links name out)
  foreach(line IN LISTS quell_layers)
    if(line MATCHES "^${name}:(.*)$")
      string(STRIP "${CMAKE_MATCH_1}" names)
      separate_arguments(names)
      set(targets quell_headers)
      foreach(other IN LISTS names)
        if(NOT other IN_LIST QUELL_HEADER_MODULES)
          list(APPEND targets quell_${other})
        endif()
      endforeach()
      set(${out} ${targets} PARENT_SCOPE)
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "cmake/layers.txt has no line for the module ${name}")
endfunction()

function(quell_module name)
  cmake_parse_arguments(arg "STRICT_INTEGERS" "" "SOURCES;PRIVATE" ${ARGN})
  quell_module_links(${name} links)
  add_library(quell_${name} STATIC ${arg_SOURCES})
  target_link_libraries(quell_${name} PUBLIC ${links} PRIVATE $<BUILD_INTERFACE:quell_flags>)
  foreach(target IN LISTS arg_PRIVATE)
    # None of these shows in a public header.
    if(target IN_LIST QUELL_HEADER_LIBRARIES)
      target_link_libraries(quell_${name} PRIVATE $<BUILD_INTERFACE:${target}>)
    else()
      target_link_libraries(quell_${name} PRIVATE ${target})
    endif()
  endforeach()
  target_include_directories(quell_${name} PRIVATE ${quell_SOURCE_DIR}/src ${quell_SOURCE_DIR})
  if(arg_STRICT_INTEGERS)
    target_compile_options(quell_${name} PRIVATE -Wconversion -Wsign-conversion)
  endif()
  set_target_properties(quell_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON
                        VISIBILITY_INLINES_HIDDEN ON EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY QUELL_MODULE_TARGETS quell_${name})
endfunction()

# quell_c_program(target): its C sources are strict C99.
function(quell_c_program target)
  set_target_properties(${target} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
  target_compile_options(${target} PRIVATE -Wall -Wextra -pedantic $<$<BOOL:${QUELL_WERROR}>:-Werror>)
endfunction()

# quell_precompile(target header): parses a large header once for the target. Not beside a compiler launcher:
# ccache would keep nothing of what includes it.
function(quell_precompile target header)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
    target_precompile_headers(${target} PRIVATE ${header})
  endif()
endfunction()

# quell_test(name SOURCES ... MODULES ... [SLOW] [HEAVY] [TIMEOUT seconds] [LIBRARIES ...]): one GoogleTest
# program, which is one CTest test: thousands of cases cost one process, not thousands. The cases are
# counted by tests/run.sh from the file that the program writes to test-results/. SLOW: run only by
# tests/run.sh --full. HEAVY: so many products that it takes minutes on wide vectors and would take hours
# on the plain C++ entries, which call a function for each multiply-add; left out of that run.
function(quell_test name)
  cmake_parse_arguments(arg "SLOW;HEAVY" "TIMEOUT" "SOURCES;MODULES;LIBRARIES" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE quell_core quell_flags GTest::gtest GTest::gtest_main ${arg_LIBRARIES})
  foreach(module IN LISTS arg_MODULES)
    if(NOT module IN_LIST QUELL_HEADER_MODULES)
      target_link_libraries(${name} PRIVATE quell_${module})
    endif()
  endforeach()
  target_include_directories(${name} PRIVATE ${quell_SOURCE_DIR}/tests ${quell_SOURCE_DIR}/src ${quell_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE QUELL_SOURCE_DIR="${quell_SOURCE_DIR}" QUELL_CHECKED)
  # Tests are compiled once and run once: -O3 took twice as long as -O1 (1,100 against 600 seconds in all).
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 600)
  endif()
  set(label fast)
  if(arg_SLOW)
    set(label slow)
  endif()
  if(arg_HEAVY)
    list(APPEND label heavy)
  endif()
  add_test(NAME ${name} COMMAND ${name} --gtest_brief=1
           --gtest_output=xml:${CMAKE_BINARY_DIR}/test-results/${name}.xml)
  set_tests_properties(${name} PROPERTIES LABELS "${label}" TIMEOUT ${arg_TIMEOUT})
endfunction()

# quell_fuzz(name SOURCES ... MODULES ...): one libFuzzer program, fuzz_<name>, built when QUELL_FUZZ is
# on and run for a minute by tests/run.sh --full.
function(quell_fuzz name)
  if(NOT QUELL_FUZZ)
    return()
  endif()
  cmake_parse_arguments(arg "" "" "SOURCES;MODULES" ${ARGN})
  add_executable(fuzz_${name} ${arg_SOURCES})
  target_link_libraries(fuzz_${name} PRIVATE quell_core quell_flags)
  foreach(module IN LISTS arg_MODULES)
    target_link_libraries(fuzz_${name} PRIVATE quell_${module})
  endforeach()
  target_include_directories(fuzz_${name} PRIVATE ${quell_SOURCE_DIR}/tests ${quell_SOURCE_DIR}/src ${quell_SOURCE_DIR})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  if(NOT TARGET fuzz_targets)
    add_custom_target(fuzz_targets)
  endif()
  add_dependencies(fuzz_targets fuzz_${name})
endfunction()
