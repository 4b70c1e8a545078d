// SPDX-License-Identifier: Apache-2.0

// main.go PLAIN_PORT TLS_PORT CA_FILE: Go's net/http against the proxy, HTTP/1.1 and HTTP/2 by ALPN. Says "ok" at the end, or why not.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// The chain is checked; a SPIFFE certificate has no host name to compare.
func chainOnly(roots *x509.CertPool) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		return err
	}
}

func talk(c *http.Client, base string, major int) error {
	var wg sync.WaitGroup
	failed := make(chan error, 100)
	for i := 0; i < 100; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r, err := c.Get(base + "/echo")
			if err != nil {
				failed <- err
				return
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			if r.StatusCode != 200 || r.ProtoMajor != major {
				failed <- fmt.Errorf("status %d over HTTP/%d, expected HTTP/%d", r.StatusCode, r.ProtoMajor, major)
			}
		}()
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	big := strings.Repeat("remora ", 1<<17)
	r, err := c.Post(base+"/echo", "text/plain", io.MultiReader(strings.NewReader(big))) // of unknown length
	if err != nil {
		return err
	}
	defer r.Body.Close()
	back, err := io.ReadAll(r.Body)
	if err == nil && !bytes.Equal(back, []byte(big)) {
		err = errors.New("the large body came back changed")
	}
	return err
}

func main() {
	pem, err := os.ReadFile(os.Args[3])
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	check(talk(http.DefaultClient, "http://127.0.0.1:"+os.Args[1], 1))
	for _, h2 := range []bool{false, true} {
		conf := &tls.Config{InsecureSkipVerify: true, VerifyConnection: chainOnly(roots)}
		major := 1
		if h2 {
			major = 2
		}
		t := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: h2}
		if !h2 {
			t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		}
		check(talk(&http.Client{Transport: t}, "https://127.0.0.1:"+os.Args[2], major))
	}
	fmt.Println("ok")
}
