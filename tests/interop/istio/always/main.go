// SPDX-License-Identifier: Apache-2.0

// An authorization server that allows everything, as fast as Go's gRPC can: for tests/bench/authorization.py. Its argument is the port.
package main

import (
	"context"
	"log"
	"net"
	"os"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

type server struct{ auth.UnimplementedAuthorizationServer }

func (server) Check(context.Context, *auth.CheckRequest) (*auth.CheckResponse, error) {
	return &auth.CheckResponse{Status: &status.Status{}}, nil
}

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	g := grpc.NewServer()
	auth.RegisterAuthorizationServer(g, server{})
	log.Fatal(g.Serve(l))
}
