// SPDX-License-Identifier: Apache-2.0
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	sdsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

type sdsServer struct {
	secret.UnimplementedSecretDiscoveryServiceServer
	cert, key, root string
}

func (s *sdsServer) FetchSecrets(context.Context, *discovery.DiscoveryRequest) (*discovery.DiscoveryResponse, error) {
	return nil, fmt.Errorf("unsupported")
}

func inl(f string) *core.DataSource {
	b, _ := os.ReadFile(f)
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: b}}
}

func (s *sdsServer) StreamSecrets(st secret.SecretDiscoveryService_StreamSecretsServer) error {
	n := 0
	for {
		r, err := st.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Printf("sds request names=%v nonce=%q version=%q error=%v node=%q\n", r.ResourceNames, r.ResponseNonce, r.VersionInfo, r.ErrorDetail, r.GetNode().GetId())
		if r.ResponseNonce != "" {
			continue
		}
		var res []*anypb.Any
		for _, name := range r.ResourceNames {
			sc := &sdsv3.Secret{Name: name}
			switch {
			case name == "default", strings.HasPrefix(name, "file-cert:"):
				sc.Type = &sdsv3.Secret_TlsCertificate{TlsCertificate: &sdsv3.TlsCertificate{CertificateChain: inl(s.cert), PrivateKey: inl(s.key)}}
			default: // ROOTCA, file-root:...
				sc.Type = &sdsv3.Secret_ValidationContext{ValidationContext: &sdsv3.CertificateValidationContext{TrustedCa: inl(s.root)}}
			}
			a, _ := anypb.New(sc)
			res = append(res, a)
		}
		n++
		if err := st.Send(&discovery.DiscoveryResponse{TypeUrl: types["SDS"], VersionInfo: fmt.Sprint(n), Nonce: fmt.Sprint(n), Resources: res}); err != nil {
			return err
		}
	}
}

// sdsCmd serves the workload certificate the way pilot-agent does for Envoy: SDS over a Unix socket.
func sdsCmd(args []string) error {
	fs := flag.NewFlagSet("sds", flag.ExitOnError)
	sock := fs.String("socket", "sds.sock", "")
	s := &sdsServer{}
	fs.StringVar(&s.cert, "cert", "", "")
	fs.StringVar(&s.key, "key", "", "")
	fs.StringVar(&s.root, "root", "", "")
	_ = fs.Parse(args)
	_ = os.Remove(*sock)
	l, err := net.Listen("unix", *sock)
	if err != nil {
		return err
	}
	g := grpc.NewServer()
	secret.RegisterSecretDiscoveryServiceServer(g, s)
	return g.Serve(l)
}
