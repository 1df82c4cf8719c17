# quell_faults: a library to preload that makes system calls fail on purpose (see faults.cpp). Built
# without sanitizers and our flags: it has to load into any program. Include this where it is needed;
# only the first time counts.
if(NOT TARGET quell_faults)
  add_library(quell_faults SHARED ${CMAKE_CURRENT_LIST_DIR}/faults.cpp)
  target_link_libraries(quell_faults PRIVATE ${CMAKE_DL_LIBS})
endif()
