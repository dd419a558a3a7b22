# Generated protobuf code. husk_add_proto(NAME PROTO path/in/source.proto [LITE]) makes a library whose headers are
# included as "path/in/source.pb.h".

find_package(Protobuf REQUIRED)

function(husk_add_proto name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "LITE" "PROTO" "")
  cmake_path(REMOVE_EXTENSION arg_PROTO OUTPUT_VARIABLE stem)
  set(header ${CMAKE_BINARY_DIR}/${stem}.pb.h)
  set(source ${CMAKE_BINARY_DIR}/${stem}.pb.cc)
  add_custom_command(
    OUTPUT ${header} ${source}
    COMMAND protobuf::protoc --proto_path=${CMAKE_SOURCE_DIR} --cpp_out=${CMAKE_BINARY_DIR} ${CMAKE_SOURCE_DIR}/${arg_PROTO}
    DEPENDS ${CMAKE_SOURCE_DIR}/${arg_PROTO}
    COMMENT "Generating ${stem}.pb.cc"
    VERBATIM)
  add_library(${name} STATIC ${source} ${header})
  if(arg_LITE)
    target_link_libraries(${name} PUBLIC protobuf::libprotobuf-lite)
  else()
    target_link_libraries(${name} PUBLIC protobuf::libprotobuf)
  endif()
  target_link_libraries(${name} PRIVATE husk_generated_code_flags)
  target_include_directories(${name} SYSTEM PUBLIC ${CMAKE_BINARY_DIR})
endfunction()
