// SPDX-License-Identifier: Apache-2.0
// kubestub: a tiny in-memory stand-in for kube-apiserver, enough for an unmodified istiod to start.
// It serves LIST/GET/WATCH (incl. watch-list with sendInitialEvents) of the YAML objects in -dir,
// accepts writes in memory, answers TokenReview from the (unverified!) JWT payload. TEST USE ONLY.
package main

import (
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/yaml"
)

type obj = map[string]any

type key struct{ group, res, ns, name string }

type event struct {
	Type   string `json:"type"`
	Object obj    `json:"object"`
	k      key
}

type watcher struct {
	group, res, ns string
	ch             chan event
}

type store struct {
	mu   sync.Mutex
	rv   int64
	data map[key]obj
	file map[key]bool
	ws   map[*watcher]bool
}

var plural = map[string]string{"Endpoints": "endpoints", "Ingress": "ingresses", "IngressClass": "ingressclasses", "GatewayClass": "gatewayclasses"}
var kinds = map[string]string{
	"pods": "Pod", "services": "Service", "endpoints": "Endpoints", "namespaces": "Namespace", "nodes": "Node",
	"secrets": "Secret", "configmaps": "ConfigMap", "serviceaccounts": "ServiceAccount", "endpointslices": "EndpointSlice",
	"ingresses": "Ingress", "ingressclasses": "IngressClass", "leases": "Lease", "events": "Event",
	"customresourcedefinitions":       "CustomResourceDefinition",
	"mutatingwebhookconfigurations":   "MutatingWebhookConfiguration",
	"validatingwebhookconfigurations": "ValidatingWebhookConfiguration",
	"deployments":                     "Deployment", "gatewayclasses": "GatewayClass",
}

func resOf(kind string) string {
	if p, ok := plural[kind]; ok {
		return p
	}
	return strings.ToLower(kind) + "s"
}

func meta(o obj) obj {
	m, _ := o["metadata"].(obj)
	if m == nil {
		m = obj{}
		o["metadata"] = m
	}
	return m
}
func str(o obj, k string) string { s, _ := o[k].(string); return s }

func groupOf(apiVersion string) string {
	if i := strings.IndexByte(apiVersion, '/'); i >= 0 {
		return apiVersion[:i]
	}
	return ""
}

func clone(o obj) obj { b, _ := json.Marshal(o); var r obj; _ = json.Unmarshal(b, &r); return r }

func (s *store) put(k key, o obj) obj {
	s.rv++
	m := meta(o)
	m["resourceVersion"] = strconv.FormatInt(s.rv, 10)
	if m["uid"] == nil {
		m["uid"] = fmt.Sprintf("00000000-0000-0000-0000-%012d", s.rv)
	}
	if m["creationTimestamp"] == nil {
		m["creationTimestamp"] = "2026-01-01T00:00:00Z"
	}
	t := "ADDED"
	if _, ok := s.data[k]; ok {
		t = "MODIFIED"
	}
	s.data[k] = o
	s.notify(event{t, o, k})
	return o
}

func (s *store) notify(e event) {
	for w := range s.ws {
		if w.group == e.k.group && w.res == e.k.res && (w.ns == "" || w.ns == e.k.ns) {
			select {
			case w.ch <- e:
			default:
			}
		}
	}
}

func (s *store) load(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.yaml"))
	seen := map[key]bool{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, doc := range strings.Split(string(b), "\n---") {
			var o obj
			if err := yaml.Unmarshal([]byte(strings.TrimPrefix(doc, "---")), &o); err != nil || o == nil || str(o, "kind") == "" {
				if err != nil {
					log.Printf("%s: %v", f, err)
				}
				continue
			}
			m := meta(o)
			k := key{groupOf(str(o, "apiVersion")), resOf(str(o, "kind")), str(m, "namespace"), str(m, "name")}
			kinds[k.res] = str(o, "kind")
			seen[k] = true
			if old, ok := s.data[k]; ok {
				a, b2 := clone(old), clone(o)
				for _, f := range []string{"resourceVersion", "uid", "creationTimestamp"} {
					delete(meta(a), f)
					delete(meta(b2), f)
				}
				x, _ := json.Marshal(a)
				y, _ := json.Marshal(b2)
				if string(x) == string(y) {
					continue
				}
			}
			s.put(k, o)
			s.file[k] = true
		}
	}
	for k := range s.file {
		if !seen[k] {
			o := s.data[k]
			delete(s.data, k)
			delete(s.file, k)
			s.rv++
			s.notify(event{"DELETED", o, k})
		}
	}
}

func lookup(o obj, path string) string {
	var cur any = o
	for _, p := range strings.Split(path, ".") {
		m, ok := cur.(obj)
		if !ok {
			return ""
		}
		cur = m[p]
	}
	s, _ := cur.(string)
	return s
}

func match(o obj, ls, fs string) bool {
	labels, _ := meta(o)["labels"].(obj)
	depth, cur := 0, ""
	var parts []string
	for _, r := range ls {
		if r == '(' {
			depth++
		}
		if r == ')' {
			depth--
		}
		if r == ',' && depth == 0 {
			parts = append(parts, cur)
			cur = ""
			continue
		}
		cur += string(r)
	}
	if cur != "" {
		parts = append(parts, cur)
	}
	for _, p := range parts {
		p = strings.TrimSpace(p)
		switch {
		case strings.Contains(p, " notin "), strings.Contains(p, " in "):
			op := " in "
			if strings.Contains(p, " notin ") {
				op = " notin "
			}
			kv := strings.SplitN(p, op, 2)
			in := false
			v, has := labels[kv[0]]
			for _, x := range strings.Split(strings.Trim(kv[1], "() "), ",") {
				in = in || (has && v == x)
			}
			if in != (op == " in ") {
				return false
			}
		case strings.Contains(p, "!="):
			kv := strings.SplitN(p, "!=", 2)
			if v, ok := labels[kv[0]]; ok && v == kv[1] {
				return false
			}
		case strings.Contains(p, "="):
			kv := strings.SplitN(strings.Replace(p, "==", "=", 1), "=", 2)
			if v, ok := labels[kv[0]]; !ok || v != kv[1] {
				return false
			}
		case strings.HasPrefix(p, "!"):
			if _, ok := labels[p[1:]]; ok {
				return false
			}
		default:
			if _, ok := labels[p]; !ok {
				return false
			}
		}
	}
	if fs != "" {
		for _, p := range strings.Split(fs, ",") {
			if strings.Contains(p, "!=") {
				kv := strings.SplitN(p, "!=", 2)
				if lookup(o, kv[0]) == kv[1] {
					return false
				}
			} else if kv := strings.SplitN(strings.Replace(p, "==", "=", 1), "=", 2); len(kv) == 2 && lookup(o, kv[0]) != kv[1] {
				return false
			}
		}
	}
	return true
}

func status(w http.ResponseWriter, code int, reason, msg string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(obj{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": msg, "code": code})
}

func reply(w http.ResponseWriter, code int, o any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}

func tokenReview(in obj) obj {
	spec, _ := in["spec"].(obj)
	tok := str(spec, "token")
	st := obj{"authenticated": false, "error": "bad token"}
	if p := strings.Split(tok, "."); len(p) == 3 {
		if b, err := base64.RawURLEncoding.DecodeString(p[1]); err == nil {
			var c obj
			if json.Unmarshal(b, &c) == nil {
				sub := str(c, "sub")
				sp := strings.Split(sub, ":")
				exp, _ := c["exp"].(float64)
				if len(sp) == 4 && (exp == 0 || int64(exp) > time.Now().Unix()) {
					aud := c["aud"]
					if a, ok := aud.(string); ok {
						aud = []any{a}
					}
					// like kube-apiserver: the token must carry one of the requested audiences
					want, _ := spec["audiences"].([]any)
					ok := len(want) == 0
					al, _ := aud.([]any)
					for _, w := range want {
						for _, a := range al {
							ok = ok || a == w
						}
					}
					if !ok {
						in["status"] = obj{"authenticated": false, "error": "token audiences do not match"}
						return in
					}
					st = obj{"authenticated": true, "audiences": aud, "user": obj{
						"username": sub, "uid": "u-" + sub,
						"groups": []any{"system:serviceaccounts", "system:serviceaccounts:" + sp[2], "system:authenticated"},
						"extra":  obj{"authentication.kubernetes.io/pod-name": []any{"pod-x"}, "authentication.kubernetes.io/pod-uid": []any{"uid-x"}},
					}}
				}
			}
		}
	}
	in["status"] = st
	return in
}

func main() {
	addr := flag.String("addr", "127.0.0.1:16443", "listen address")
	dir := flag.String("dir", "kube", "directory with *.yaml objects")
	verbose := flag.Bool("v", false, "log requests")
	flag.Parse()
	s := &store{data: map[key]obj{}, file: map[key]bool{}, ws: map[*watcher]bool{}, rv: 100}
	s.load(*dir)
	go func() {
		for range time.Tick(time.Second) {
			s.load(*dir)
		}
	}()
	h := func(w http.ResponseWriter, r *http.Request) {
		if *verbose {
			log.Printf("%s %s", r.Method, r.URL)
		}
		p := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
		if r.URL.Path == "/version" {
			reply(w, 200, obj{"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"})
			return
		}
		var group, version string
		switch {
		case p[0] == "api" && len(p) == 1:
			reply(w, 200, obj{"kind": "APIVersions", "versions": []string{"v1"}})
			return
		case p[0] == "apis" && len(p) == 1:
			reply(w, 200, obj{"kind": "APIGroupList", "apiVersion": "v1", "groups": []any{}})
			return
		case p[0] == "api" && len(p) >= 2:
			version, p = p[1], p[2:]
		case p[0] == "apis" && len(p) >= 3:
			group, version, p = p[1], p[2], p[3:]
		default:
			status(w, 404, "NotFound", r.URL.Path)
			return
		}
		gv := version
		if group != "" {
			gv = group + "/" + version
		}
		if len(p) == 0 {
			reply(w, 200, obj{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": []any{}})
			return
		}
		ns := ""
		if p[0] == "namespaces" && len(p) >= 3 {
			ns, p = p[1], p[2:]
		}
		res, name, sub := p[0], "", ""
		if len(p) > 1 {
			name = p[1]
		}
		if len(p) > 2 {
			sub = p[2]
		}
		_ = sub
		var body obj
		if r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH" {
			b, _ := io.ReadAll(r.Body)
			if json.Unmarshal(b, &body) != nil && yaml.Unmarshal(b, &body) != nil {
				status(w, 415, "UnsupportedMediaType", "kubestub takes JSON bodies only (set ISTIO_KUBE_CLIENT_CONTENT_TYPE=json)")
				return
			}
		}
		if r.Method == "POST" {
			switch res {
			case "tokenreviews":
				reply(w, 201, tokenReview(body))
				return
			case "subjectaccessreviews", "selfsubjectaccessreviews":
				body["status"] = obj{"allowed": true}
				reply(w, 201, body)
				return
			}
		}
		q := r.URL.Query()
		ls, fs := q.Get("labelSelector"), q.Get("fieldSelector")
		partial := strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
		conv := func(o obj) obj {
			if partial {
				return obj{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta(o)}
			}
			return o
		}
		list := func() []obj {
			var out []obj
			for k, o := range s.data {
				if k.group == group && k.res == res && (ns == "" || ns == k.ns) && match(o, ls, fs) {
					out = append(out, conv(o))
				}
			}
			sort.Slice(out, func(i, j int) bool { return str(meta(out[i]), "name") < str(meta(out[j]), "name") })
			return out
		}
		kind := kinds[res]
		if kind == "" {
			kind = strings.ToUpper(res[:1]) + strings.TrimSuffix(res[1:], "s")
		}
		k := key{group, res, ns, name}
		switch {
		case r.Method == "GET" && name == "" && (q.Get("watch") == "true" || q.Get("watch") == "1"):
			wt := &watcher{group, res, ns, make(chan event, 1024)}
			w.Header().Set("Content-Type", "application/json")
			enc := json.NewEncoder(w)
			s.mu.Lock()
			s.ws[wt] = true
			if q.Get("sendInitialEvents") == "true" {
				for _, o := range list() {
					_ = enc.Encode(event{Type: "ADDED", Object: o})
				}
				bk, av := kind, gv
				if partial {
					bk, av = "PartialObjectMetadata", "meta.k8s.io/v1"
				}
				_ = enc.Encode(event{Type: "BOOKMARK", Object: obj{"kind": bk, "apiVersion": av, "metadata": obj{
					"resourceVersion": strconv.FormatInt(s.rv, 10), "annotations": obj{"k8s.io/initial-events-end": "true"}}}})
			}
			s.mu.Unlock()
			w.(http.Flusher).Flush()
			defer func() { s.mu.Lock(); delete(s.ws, wt); s.mu.Unlock() }()
			for {
				select {
				case <-r.Context().Done():
					return
				case e := <-wt.ch:
					if match(e.Object, ls, fs) {
						s.mu.Lock()
						_ = enc.Encode(event{Type: e.Type, Object: conv(e.Object)})
						s.mu.Unlock()
						w.(http.Flusher).Flush()
					}
				}
			}
		case r.Method == "GET" && name == "":
			s.mu.Lock()
			items := list()
			rv := strconv.FormatInt(s.rv, 10)
			lk, av := kind+"List", gv
			if partial {
				lk, av = "PartialObjectMetadataList", "meta.k8s.io/v1"
			}
			if items == nil {
				items = []obj{}
			}
			reply(w, 200, obj{"kind": lk, "apiVersion": av, "metadata": obj{"resourceVersion": rv}, "items": items})
			s.mu.Unlock()
		case r.Method == "GET":
			s.mu.Lock()
			defer s.mu.Unlock()
			if o, ok := s.data[k]; ok {
				reply(w, 200, conv(o))
				return
			}
			status(w, 404, "NotFound", fmt.Sprintf("%s %q not found", res, name))
		case r.Method == "POST":
			s.mu.Lock()
			defer s.mu.Unlock()
			m := meta(body)
			k.name = str(m, "name")
			if k.name == "" {
				k.name = str(m, "generateName") + strconv.FormatInt(s.rv, 10)
				m["name"] = k.name
			}
			if ns != "" {
				m["namespace"] = ns
			}
			if _, ok := s.data[k]; ok {
				status(w, 409, "AlreadyExists", k.name)
				return
			}
			body["kind"], body["apiVersion"] = kind, gv
			reply(w, 201, s.put(k, body))
		case r.Method == "PUT" || r.Method == "PATCH":
			s.mu.Lock()
			defer s.mu.Unlock()
			o := s.data[k]
			if r.Method == "PATCH" && o != nil {
				o = clone(o)
				for f, v := range body {
					if f != "metadata" {
						o[f] = v
					}
				}
				body = o
			}
			body["kind"], body["apiVersion"] = kind, gv
			meta(body)["name"] = name
			if ns != "" {
				meta(body)["namespace"] = ns
			}
			reply(w, 200, s.put(k, body))
		case r.Method == "DELETE":
			s.mu.Lock()
			defer s.mu.Unlock()
			o, ok := s.data[k]
			if !ok {
				status(w, 404, "NotFound", name)
				return
			}
			delete(s.data, k)
			s.notify(event{"DELETED", o, k})
			reply(w, 200, obj{"kind": "Status", "apiVersion": "v1", "status": "Success"})
		}
	}
	log.Printf("kubestub on http://%s, %d objects", *addr, len(s.data))
	log.Fatal(http.ListenAndServe(*addr, http.HandlerFunc(h)))
}
