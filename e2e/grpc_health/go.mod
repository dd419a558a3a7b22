// A server of grpc.health.v1 for gRPC probes. Go's own HTTP/2 is all that it needs.
module husk.example/e2e/grpc_health

go 1.26.0
