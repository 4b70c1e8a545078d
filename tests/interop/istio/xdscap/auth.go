// SPDX-License-Identifier: Apache-2.0
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	pb "istio.io/api/security/v1alpha1"
)

func loadKey(path string) (*rsa.PrivateKey, error) {
	if b, err := os.ReadFile(path); err == nil {
		blk, _ := pem.Decode(b)
		k, err := x509.ParsePKCS8PrivateKey(blk.Bytes)
		if err != nil {
			return nil, err
		}
		return k.(*rsa.PrivateKey), nil
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	der, _ := x509.MarshalPKCS8PrivateKey(k)
	return k, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func jwksCmd(args []string) error {
	fs := flag.NewFlagSet("jwks", flag.ExitOnError)
	addr := fs.String("addr", "127.0.0.1:18181", "")
	key := fs.String("key", "jwt-key.pem", "")
	_ = fs.Parse(args)
	k, err := loadKey(*key)
	if err != nil {
		return err
	}
	doc, _ := json.Marshal(map[string]any{"keys": []any{map[string]any{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "k1",
		"n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}}})
	return http.ListenAndServe(*addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(doc)
	}))
}

func tokenCmd(args []string) error {
	fs := flag.NewFlagSet("token", flag.ExitOnError)
	key := fs.String("key", "jwt-key.pem", "")
	iss := fs.String("iss", "capture-issuer", "")
	aud := fs.String("aud", "istio-ca", "")
	ns := fs.String("ns", "default", "")
	sa := fs.String("sa", "bookinfo-productpage", "")
	ttl := fs.Duration("ttl", 12*time.Hour, "")
	_ = fs.Parse(args)
	k, err := loadKey(*key)
	if err != nil {
		return err
	}
	now := time.Now().Unix()
	hd, _ := json.Marshal(map[string]any{"alg": "RS256", "kid": "k1"})
	pl, _ := json.Marshal(map[string]any{"iss": *iss, "aud": []string{*aud}, "sub": "system:serviceaccount:" + *ns + ":" + *sa,
		"iat": now, "nbf": now, "exp": now + int64(ttl.Seconds()),
		"kubernetes.io": map[string]any{"namespace": *ns, "serviceaccount": map[string]any{"name": *sa}}})
	in := b64(hd) + "." + b64(pl)
	h := sha256.Sum256([]byte(in))
	sig, err := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, h[:])
	if err != nil {
		return err
	}
	fmt.Println(in + "." + b64(sig))
	return nil
}

func csrCmd(args []string) error {
	fs := flag.NewFlagSet("csr", flag.ExitOnError)
	addr := fs.String("addr", "127.0.0.1:15012", "")
	root := fs.String("root", "", "")
	sni := fs.String("server-name", "istiod.istio-system.svc", "")
	token := fs.String("token", "", "")
	certF := fs.String("cert", "", "client cert (renewal)")
	keyF := fs.String("key", "", "client key (renewal)")
	alg := fs.String("alg", "rsa", "rsa|ecdsa")
	san := fs.String("san", "spiffe://cluster.local/ns/default/sa/bookinfo-productpage", "URI SAN put in the CSR")
	ttl := fs.Duration("ttl", 24*time.Hour, "")
	out := fs.String("out", "", "prefix for key/cert/root files")
	plaintext := fs.Bool("plaintext", false, "")
	_ = fs.Parse(args)
	var signer crypto.Signer
	var err error
	if *alg == "rsa" {
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return err
	}
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{}}
	if *san != "" {
		u, err := url.Parse(*san)
		if err != nil {
			return err
		}
		// Same shape as pilot-agent: SAN extension (critical iff subject empty) with one URI.
		val, _ := asn1.Marshal([]asn1.RawValue{{Tag: 6, Class: 2, Bytes: []byte(u.String())}})
		tmpl.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: val}}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, signer)
	if err != nil {
		return err
	}
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	opts, err := dialOpts(!*plaintext, *root, *sni, *certF, *keyF, *token)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+*addr, opts...)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "ClusterID", "Kubernetes")
	req := &pb.IstioCertificateRequest{Csr: csr, ValidityDuration: int64(ttl.Seconds()),
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"CertSigner": structpb.NewStringValue("")}}}
	fmt.Println("request:", protojson.Format(req))
	resp, err := pb.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, req)
	if err != nil {
		return err
	}
	fmt.Printf("response: %d cert_chain entries\n", len(resp.CertChain))
	for i, c := range resp.CertChain {
		rest := []byte(c)
		for {
			var b *pem.Block
			b, rest = pem.Decode(rest)
			if b == nil {
				break
			}
			x, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return err
			}
			fmt.Printf("  [%d] subject=%q issuer=%q URIs=%v DNS=%v notBefore=%s notAfter=%s CA=%v keyUsage=%b eku=%v alg=%s\n", i, x.Subject, x.Issuer, x.URIs, x.DNSNames,
				x.NotBefore.Format(time.RFC3339), x.NotAfter.Format(time.RFC3339), x.IsCA, x.KeyUsage, x.ExtKeyUsage, x.SignatureAlgorithm)
		}
	}
	if *out != "" {
		kd, _ := x509.MarshalPKCS8PrivateKey(signer)
		_ = os.WriteFile(*out+"-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kd}), 0o600)
		chain := ""
		for _, c := range resp.CertChain[:len(resp.CertChain)-1] {
			chain += c
		}
		_ = os.WriteFile(*out+"-cert-chain.pem", []byte(chain), 0o644)
		_ = os.WriteFile(*out+"-root-cert.pem", []byte(resp.CertChain[len(resp.CertChain)-1]), 0o644)
	}
	return nil
}
