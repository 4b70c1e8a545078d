// SPDX-License-Identifier: Apache-2.0
// xdscap: capture what istiod sends to a sidecar. Subcommands:
//
//	dump       connect as a proxy (sotw or delta), subscribe like Envoy does, save JSON + raw protobuf
//	jwks       serve a JWKS for a locally generated RSA key; token: mint a projected-SA-like JWT
//	csr        run istio.v1.auth.IstioCertificateService/CreateCertificate
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Println("usage: xdscap dump|jwks|token|csr [flags]")
		os.Exit(2)
	}
	var err error
	switch os.Args[1] {
	case "dump":
		err = dumpCmd(os.Args[2:])
	case "jwks":
		err = jwksCmd(os.Args[2:])
	case "token":
		err = tokenCmd(os.Args[2:])
	case "sds":
		err = sdsCmd(os.Args[2:])
	case "csr":
		err = csrCmd(os.Args[2:])
	default:
		err = fmt.Errorf("unknown subcommand %q", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
