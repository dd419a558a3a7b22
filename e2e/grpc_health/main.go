// grpc_health ADDRESS DIRECTORY: grpc.health.v1.Health/Check without TLS. A service that has a file of its name in
// DIRECTORY is SERVING, any other is not; the empty name stands for the server itself, which always is.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
)

const (
	maximumRequest = 4096
	serving        = 1
	notServing     = 2
)

// A gRPC message is a byte that says whether it is compressed, four bytes of length, and protobuf.
func readService(body io.Reader) (string, error) {
	frame, err := io.ReadAll(io.LimitReader(body, maximumRequest))
	if err != nil || len(frame) < 5 || frame[0] != 0 || binary.BigEndian.Uint32(frame[1:]) != uint32(len(frame)-5) {
		return "", fmt.Errorf("no plain message of gRPC: %v", err)
	}
	message := frame[5:]
	if len(message) == 0 {
		return "", nil
	}
	// HealthCheckRequest has one field: 1, a string, here of less than 128 bytes.
	if len(message) < 2 || message[0] != 1<<3|2 || int(message[1]) != len(message)-2 {
		return "", fmt.Errorf("no HealthCheckRequest")
	}
	return string(message[2:]), nil
}

func status(directory, service string) byte {
	if service == "" {
		return serving
	}
	if _, err := os.Stat(filepath.Join(directory, filepath.Base(service))); err != nil {
		return notServing
	}
	return serving
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("grpc_health ADDRESS DIRECTORY")
	}
	handler := http.NewServeMux()
	handler.HandleFunc("POST /grpc.health.v1.Health/Check", func(answer http.ResponseWriter, request *http.Request) {
		answer.Header().Set("Content-Type", "application/grpc")
		answer.Header().Set("Trailer", "Grpc-Status")
		service, err := readService(request.Body)
		if err != nil {
			log.Print(err)
			answer.Header().Set("Grpc-Status", "3") // INVALID_ARGUMENT
			return
		}
		_, _ = answer.Write([]byte{0, 0, 0, 0, 2, 1 << 3, status(os.Args[2], service)})
		answer.Header().Set("Grpc-Status", "0")
	})
	server := &http.Server{Addr: os.Args[1], Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetUnencryptedHTTP2(true)
	log.Fatal(server.ListenAndServe())
}
