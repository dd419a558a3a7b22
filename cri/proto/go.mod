// Pins the CRI's api.proto: cri/proto/CMakeLists.txt takes it from this module. Nothing here is Go.
module husk.example/cri/proto

go 1.19

require k8s.io/cri-api v0.36.0
