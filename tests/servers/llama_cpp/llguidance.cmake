# Build llama.cpp with the llguidance that a wheel carries; its own way to one fetches and compiles the source.
# LLGUIDANCE: the wheel's library; LLGUIDANCE_PYTHON: libpython, which that library wants to see.
if(PROJECT_NAME STREQUAL "llama.cpp")
    set(LLGUIDANCE_HEADER ${CMAKE_CURRENT_LIST_DIR})
    cmake_language(DEFER CALL target_compile_definitions llama-common PRIVATE LLAMA_USE_LLGUIDANCE)
    cmake_language(DEFER CALL target_include_directories llama-common PRIVATE ${LLGUIDANCE_HEADER})
    cmake_language(DEFER CALL target_link_libraries llama-server PRIVATE ${LLGUIDANCE} ${LLGUIDANCE_PYTHON})
endif()
