# Build llama.cpp with the llguidance that a wheel carries; its own way to one fetches and compiles the source.
# LLGUIDANCE: the wheel's library, given to the linker by its path, since it has no name; LLGUIDANCE_PYTHON: libpython,
# which that library wants to see.
if(PROJECT_NAME STREQUAL "llama.cpp")
    set(LLGUIDANCE_HEADER ${CMAKE_CURRENT_LIST_DIR})
    get_filename_component(LLGUIDANCE_RPATH ${LLGUIDANCE_PYTHON} DIRECTORY)
    set(LLGUIDANCE_LINKED "-Wl,--no-as-needed,${LLGUIDANCE},${LLGUIDANCE_PYTHON},-rpath,${LLGUIDANCE_RPATH}")
    cmake_language(DEFER CALL target_compile_definitions llama-common PRIVATE LLAMA_USE_LLGUIDANCE)
    cmake_language(DEFER CALL target_include_directories llama-common PRIVATE ${LLGUIDANCE_HEADER})
    cmake_language(DEFER CALL target_link_libraries llama-server PRIVATE ${LLGUIDANCE_LINKED})
endif()
