// SPDX-License-Identifier: Apache-2.0
// gRPC's interop test service with health and reflection, for grpcurl. Argument: the port on 127.0.0.1.
package main

import (
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server, state := grpc.NewServer(), health.NewServer()
	testpb.RegisterTestServiceServer(server, interop.NewTestServer())
	healthpb.RegisterHealthServer(server, state)
	state.SetServingStatus("grpc.testing.TestService", healthpb.HealthCheckResponse_SERVING)
	reflection.Register(server)
	log.Fatal(server.Serve(listener))
}
