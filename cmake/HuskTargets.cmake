# How Husk's targets are made: one library per room, its links PRIVATE unless its headers need them, warnings as
# errors, and unit tests beside the code.

include(GNUInstallDirs)

find_package(Threads REQUIRED)
find_package(absl REQUIRED)

add_library(husk_build_flags INTERFACE)
target_include_directories(husk_build_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
target_compile_options(husk_build_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Woverloaded-virtual -Wcast-qual
  -Wformat=2 -Wimplicit-fallthrough -Wunused -Wno-missing-field-initializers -Werror
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>
  # clang warns of what GCC 12's own std::stable_sort uses.
  $<$<CXX_COMPILER_ID:Clang>:-Wno-deprecated-declarations>
  # GCC 12 sees overlaps in std::string's own code where there are none, and reads of what it did not set.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict> $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-stringop-overflow> $<$<CXX_COMPILER_ID:GNU>:-Wno-stringop-overread>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-array-bounds> $<$<CXX_COMPILER_ID:GNU>:-Wno-dangling-pointer>
  -fstack-protector-strong -fno-omit-frame-pointer
  $<$<CONFIG:Release>:-U_FORTIFY_SOURCE> $<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)
target_link_options(husk_build_flags INTERFACE -Wl,-z,relro -Wl,-z,now)
if(HUSK_SANITIZER)
  target_compile_options(husk_build_flags INTERFACE -fsanitize=${HUSK_SANITIZER} -fno-sanitize-recover=all)
  target_link_options(husk_build_flags INTERFACE -fsanitize=${HUSK_SANITIZER})
endif()

if(HUSK_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "HUSK_FUZZ needs clang, which has libFuzzer: cmake --preset asan-ubsan")
  endif()
  # Coverage in every library, so that libFuzzer sees where an input leads; its main() is only in its targets.
  target_compile_options(husk_build_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_compile_definitions(husk_build_flags INTERFACE _GLIBCXX_ASSERTIONS)
endif()

# The tests' own code is run once: to optimise it costs GCC a third of its time for them. Without optimisation there is nothing
# to fortify. One word for CMake, which leaves out an option that is there already.
add_library(husk_test_flags INTERFACE)
target_compile_options(husk_test_flags INTERFACE "SHELL:-O0 -U_FORTIFY_SOURCE")
add_custom_target(husk_unit_tests COMMENT "The unit tests are built")

# Code that protoc made and headers of libraries do not have to satisfy our warnings.
add_library(husk_generated_code_flags INTERFACE)
target_include_directories(husk_generated_code_flags SYSTEM INTERFACE ${CMAKE_BINARY_DIR})
if(HUSK_SANITIZER)
  target_compile_options(husk_generated_code_flags INTERFACE -fsanitize=${HUSK_SANITIZER} -w)
else()
  target_compile_options(husk_generated_code_flags INTERFACE -w)
endif()

# What most files include, compiled once for libraries and once, with GoogleTest, for tests: clang takes half as long for a
# test file then. Only where asked for, so that the other builds see that each file includes what it uses; and only with
# clang, as GCC gains a tenth.
if(HUSK_PRECOMPILE)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "HUSK_PRECOMPILE is for clang")
  endif()
  find_package(nlohmann_json REQUIRED)
  find_package(GTest REQUIRED)
  # All files must be compiled with what their headers were, threads too. Without the time of its making: ccache would never
  # find again what was compiled with it.
  target_compile_options(husk_build_flags INTERFACE -pthread "SHELL:-Xclang -fno-pch-timestamp")
  set(precompiled_headers <absl/status/status.h> <absl/status/statusor.h> <algorithm> <array> <chrono> <filesystem>
      <fstream> <functional> <map> <memory> <nlohmann/json.hpp> <optional> <set> <sstream> <string> <string_view> <thread>
      <utility> <vector>)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/precompiled.cc CONTENT "")
  add_library(husk_precompiled STATIC ${CMAKE_BINARY_DIR}/precompiled.cc)
  add_executable(husk_precompiled_tests ${CMAKE_BINARY_DIR}/precompiled.cc)
  target_link_libraries(husk_precompiled PRIVATE husk_build_flags absl::statusor nlohmann_json::nlohmann_json)
  # An executable, as its code is compiled otherwise than a library's.
  target_link_libraries(husk_precompiled_tests PRIVATE husk_build_flags husk_test_flags absl::statusor nlohmann_json::nlohmann_json
                        GTest::gmock_main GTest::gtest)
  target_precompile_headers(husk_precompiled PRIVATE ${precompiled_headers})
  target_precompile_headers(husk_precompiled_tests PRIVATE ${precompiled_headers} <gmock/gmock.h> <gtest/gtest.h>)
endif()

# husk_add_library(NAME SOURCES a.cc b.cc [PUBLIC dep...] [PRIVATE dep...])
function(husk_add_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;PUBLIC;PRIVATE")
  add_library(${name} STATIC ${arg_SOURCES})
  target_link_libraries(${name} PUBLIC ${arg_PUBLIC} PRIVATE husk_build_flags ${arg_PRIVATE})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  if(HUSK_PRECOMPILE)
    target_precompile_headers(${name} REUSE_FROM husk_precompiled)
  endif()
endfunction()

# husk_add_executable(NAME SOURCES a.cc [PRIVATE dep...])
function(husk_add_executable name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;PRIVATE")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE husk_build_flags ${arg_PRIVATE})
endfunction()

# husk_add_unit_test(NAME [E2E] [SINGLE_THREADED] SOURCES a_test.cc [PRIVATE dep...]): one GoogleTest binary per room or
# subject, one CTest test per binary, label "unit", or "e2e" for one that works on the host's real parts. What it tests and is
# SINGLE_THREADED has nothing that ThreadSanitizer could find, and is left out of its build. Ten minutes are the limit for a
# hang, not an expectation: the sanitizers are slow.
function(husk_add_unit_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "E2E;SINGLE_THREADED" "" "SOURCES;PRIVATE")
  file(RELATIVE_PATH room ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  string(REGEX REPLACE "/.*" "" room ${room})
  if(NOT HUSK_BUILD_TESTS OR NOT (arg_E2E OR room IN_LIST HUSK_UNIT_TESTED_ROOMS))
    return()
  endif()
  if(arg_SINGLE_THREADED AND HUSK_SANITIZER STREQUAL "thread")
    return()
  endif()
  find_package(GTest REQUIRED)
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE husk_build_flags husk_test_flags ${arg_PRIVATE} GTest::gmock_main GTest::gtest)
  if(HUSK_PRECOMPILE)
    target_precompile_headers(${name} REUSE_FROM husk_precompiled_tests)
  endif()
  if(NOT arg_E2E)
    add_dependencies(husk_unit_tests ${name})
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS $<IF:$<BOOL:${arg_E2E}>,e2e,unit> TIMEOUT 600
    ENVIRONMENT "TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/cmake/thread_sanitizer.supp:halt_on_error=1:second_deadlock_stack=1;ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1;UBSAN_OPTIONS=print_stacktrace=1")
endfunction()

# husk_add_fuzz_target(NAME [MORE_SOURCES...] [PRIVATE dep...]): NAME.cc, one way in which untrusted bytes come in. Only with
# HUSK_FUZZ. Seeds are in corpus/NAME beside it, words in NAME.dict; deploy/fuzz finds it and runs it.
function(husk_add_fuzz_target name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "PRIVATE")
  husk_add_executable(${name} SOURCES ${name}.cc ${arg_UNPARSED_ARGUMENTS}
                      PRIVATE husk_common absl::strings ${arg_PRIVATE})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()
