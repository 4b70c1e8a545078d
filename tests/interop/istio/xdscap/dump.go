// SPDX-License-Identifier: Apache-2.0
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	sdsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	_ "github.com/cncf/xds/go/udpa/type/v1"
	_ "github.com/cncf/xds/go/xds/type/matcher/v3"
	_ "github.com/cncf/xds/go/xds/type/v3"
	_ "istio.io/api/envoy/extensions/stats"
	_ "istio.io/api/mesh/v1alpha1"
	_ "istio.io/istio/pkg/config/xds"
	_ "istio.io/istio/pkg/dns/proto"
	_ "istio.io/istio/pkg/workloadapi"
	_ "istio.io/istio/pkg/workloadapi/security"
)

const tp = "type.googleapis.com/"

var types = map[string]string{
	"CDS":  tp + "envoy.config.cluster.v3.Cluster",
	"EDS":  tp + "envoy.config.endpoint.v3.ClusterLoadAssignment",
	"LDS":  tp + "envoy.config.listener.v3.Listener",
	"RDS":  tp + "envoy.config.route.v3.RouteConfiguration",
	"SDS":  tp + "envoy.extensions.transport_sockets.tls.v3.Secret",
	"ECDS": tp + "envoy.config.core.v3.TypedExtensionConfig",
	"NDS":  tp + "istio.networking.nds.v1.NameTable",
	"PCDS": tp + "istio.mesh.v1alpha1.ProxyConfig",
	"WDS":  tp + "istio.workload.Workload",
}

func short(url string) string {
	for k, v := range types {
		if v == url {
			return k
		}
	}
	return url
}

type dumper struct {
	out        string
	node       *core.Node
	delta      bool
	nack       map[string]bool
	transcript []any
	resources  map[string]map[string]*anypb.Any // short -> name -> resource
	subs       map[string]map[string]bool
	secrets    map[string]string // sds name -> source
	nresp      int
	t0         time.Time
	send       func(typ string, subscribe []string, nonce, version, errmsg string, initial bool) error
}

func (d *dumper) log(kind string, kv map[string]any) {
	kv["t_ms"] = time.Since(d.t0).Milliseconds()
	kv["event"] = kind
	d.transcript = append(d.transcript, kv)
	b, _ := json.Marshal(kv)
	fmt.Println(string(b))
}

func resName(typ string, a *anypb.Any) string {
	m, err := a.UnmarshalNew()
	if err != nil {
		return "?"
	}
	fd := m.ProtoReflect().Descriptor().Fields().ByName("name")
	if short(typ) == "EDS" {
		fd = m.ProtoReflect().Descriptor().Fields().ByName("cluster_name")
	}
	if fd == nil {
		return string(m.ProtoReflect().Descriptor().Name())
	}
	return m.ProtoReflect().Get(fd).String()
}

// walk all messages below m, unpacking Any
func walk(m protoreflect.Message, f func(protoreflect.Message)) {
	f(m)
	if a, ok := m.Interface().(*anypb.Any); ok {
		if n, err := a.UnmarshalNew(); err == nil {
			walk(n.ProtoReflect(), f)
		}
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { walk(v.Message(), f); return true })
			}
		case fd.IsList() && fd.Message() != nil:
			for i := 0; i < v.List().Len(); i++ {
				walk(v.List().Get(i).Message(), f)
			}
		case fd.Message() != nil:
			walk(v.Message(), f)
		}
		return true
	})
}

// references collects what Envoy would subscribe to next because of this resource.
func (d *dumper) references(a *anypb.Any) (out map[string][]string) {
	out = map[string][]string{}
	m, err := a.UnmarshalNew()
	if err != nil {
		return
	}
	add := func(t, n string) {
		if !d.subs[t][n] {
			d.subs[t][n] = true
			out[t] = append(out[t], n)
		}
	}
	if c, ok := m.(*cluster.Cluster); ok && c.GetType() == cluster.Cluster_EDS {
		n := c.GetEdsClusterConfig().GetServiceName()
		if n == "" {
			n = c.Name
		}
		add("EDS", n)
	}
	walk(m.ProtoReflect(), func(pm protoreflect.Message) {
		switch x := pm.Interface().(type) {
		case *hcm.HttpConnectionManager:
			if r := x.GetRds(); r != nil {
				add("RDS", r.RouteConfigName)
			}
			for _, f := range x.HttpFilters {
				if f.GetConfigDiscovery() != nil {
					add("ECDS", f.Name)
				}
			}
		case *listener.Filter:
			if x.GetConfigDiscovery() != nil {
				add("ECDS", x.Name)
			}
		case *sdsv3.SdsSecretConfig:
			src := "ads"
			if s := x.GetSdsConfig().GetApiConfigSource(); s != nil {
				src = "grpc:" + s.GetGrpcServices()[0].GetEnvoyGrpc().GetClusterName()
			} else if x.SdsConfig == nil {
				src = "static"
			} else {
				add("SDS", x.Name)
			}
			d.secrets[x.Name] = src
		}
	})
	return
}

func (d *dumper) onResponse(typ, version, nonce string, names []string, res []*anypb.Any, removed []string, cp string, raw proto.Message) error {
	s := short(typ)
	d.nresp++
	_ = os.MkdirAll(d.out, 0o755)
	b, _ := proto.Marshal(raw)
	_ = os.WriteFile(filepath.Join(d.out, fmt.Sprintf("%02d-%s.response.pb", d.nresp, s)), b, 0o644)
	if d.resources[s] == nil {
		d.resources[s] = map[string]*anypb.Any{}
	}
	next := map[string][]string{}
	for i, a := range res {
		n := names[i]
		d.resources[s][n] = a
		for t, l := range d.references(a) {
			next[t] = append(next[t], l...)
		}
	}
	for _, r := range removed {
		delete(d.resources[s], r)
	}
	show := names
	if len(show) > 400 {
		show = show[:400]
	}
	d.log("response", map[string]any{"type": s, "version": version, "nonce": nonce, "resources": len(res), "names": show, "removed": removed, "control_plane": cp, "bytes": len(b)})
	errmsg := ""
	if d.nack[s] {
		errmsg = "capture client rejects this type on purpose"
	}
	if err := d.send(typ, nil, nonce, version, errmsg, false); err != nil {
		return err
	}
	for _, t := range []string{"EDS", "RDS", "ECDS", "SDS"} {
		if l := next[t]; len(l) > 0 {
			sort.Strings(l)
			if err := d.send(types[t], l, "", "", "", false); err != nil {
				return err
			}
		}
	}
	if s == "CDS" && d.nresp == 1 {
		// Envoy asks for LDS once clusters are warmed; NDS/PCDS are added by pilot-agent right after LDS.
		for _, t := range []string{"LDS", "NDS", "PCDS"} {
			if err := d.send(types[t], nil, "", "", "", true); err != nil {
				return err
			}
		}
	}
	return nil
}

type kvflag map[string]string

func (k kvflag) String() string { return "" }
func (k kvflag) Set(s string) error {
	a, b, _ := strings.Cut(s, "=")
	k[a] = b
	return nil
}

type bearer struct{ tok, typ string }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.tok}, nil
}
func (b bearer) RequireTransportSecurity() bool { return true }

func dialOpts(useTLS bool, root, serverName, certF, keyF, tokenF string) ([]grpc.DialOption, error) {
	if !useTLS {
		return []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, nil
	}
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(root)
	if err != nil {
		return nil, err
	}
	pool.AppendCertsFromPEM(pem)
	cfg := &tls.Config{RootCAs: pool, ServerName: serverName, MinVersion: tls.VersionTLS12}
	if certF != "" {
		c, err := tls.LoadX509KeyPair(certF, keyF)
		if err != nil {
			return nil, err
		}
		cfg.Certificates = []tls.Certificate{c}
	}
	o := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(cfg))}
	if tokenF != "" {
		t, err := os.ReadFile(tokenF)
		if err != nil {
			return nil, err
		}
		o = append(o, grpc.WithPerRPCCredentials(bearer{tok: strings.TrimSpace(string(t))}))
	}
	return o, nil
}

func dumpCmd(args []string) error {
	fs := flag.NewFlagSet("dump", flag.ExitOnError)
	addr := fs.String("addr", "127.0.0.1:15010", "istiod")
	useTLS := fs.Bool("tls", false, "TLS (15012)")
	root := fs.String("root", "", "root-cert.pem")
	sni := fs.String("server-name", "istiod.istio-system.svc", "expected DNS SAN")
	certF := fs.String("cert", "", "client cert chain")
	keyF := fs.String("key", "", "client key")
	tokenF := fs.String("token", "", "bearer token file")
	mode := fs.String("mode", "delta", "delta|sotw")
	out := fs.String("out", "dump", "output dir")
	ntype := fs.String("type", "sidecar", "node type")
	ip := fs.String("ip", "10.244.0.10", "instance IPs, comma separated")
	name := fs.String("name", "productpage-v1", "pod name")
	ns := fs.String("ns", "default", "namespace")
	sa := fs.String("sa", "bookinfo-productpage", "service account")
	labels := fs.String("labels", "app=productpage,version=v1", "pod labels")
	version := fs.String("istio-version", "1.30.0", "ISTIO_VERSION metadata")
	nack := fs.String("nack", "", "types to NACK, comma separated")
	sub := fs.String("sub", "", "extra explicit subscriptions TYPE:name,TYPE:name sent after LDS")
	wait := fs.Duration("wait", 2*time.Second, "stop after this much silence")
	maxWait := fs.Duration("max", 60*time.Second, "hard stop")
	nodeFile := fs.String("write-node", "", "also write node JSON here")
	meta := kvflag{}
	fs.Var(meta, "meta", "extra node metadata KEY=VALUE (JSON value if it starts with {, [ or \")")
	_ = fs.Parse(args)

	lab := map[string]any{}
	for _, kv := range strings.Split(*labels, ",") {
		if a, b, ok := strings.Cut(kv, "="); ok {
			lab[a] = b
		}
	}
	lab["service.istio.io/canonical-name"] = lab["app"]
	lab["service.istio.io/canonical-revision"] = lab["version"]
	lab["security.istio.io/tlsMode"] = "istio"
	app, _ := lab["app"].(string)
	m := map[string]any{
		"ANNOTATIONS":           map[string]any{"sidecar.istio.io/status": "{}"},
		"APP_CONTAINERS":        app,
		"CLUSTER_ID":            "Kubernetes",
		"ENVOY_PROMETHEUS_PORT": 15090,
		"ENVOY_STATUS_PORT":     15021,
		"INSTANCE_IPS":          *ip,
		"INTERCEPTION_MODE":     "REDIRECT",
		"ISTIO_PROXY_SHA":       "capture",
		"ISTIO_VERSION":         *version,
		"LABELS":                lab,
		"MESH_ID":               "cluster.local",
		"NAME":                  *name,
		"NAMESPACE":             *ns,
		"NODE_NAME":             "node-a",
		"OWNER":                 "kubernetes://apis/apps/v1/namespaces/" + *ns + "/deployments/" + *name,
		"PILOT_SAN":             []any{"istiod.istio-system.svc"},
		"POD_PORTS":             "[\n]",
		"SERVICE_ACCOUNT":       *sa,
		"WORKLOAD_NAME":         *name,
		"PROXY_CONFIG": map[string]any{
			"configPath": "./etc/istio/proxy", "binaryPath": "/usr/local/bin/envoy", "serviceCluster": "istio-proxy",
			"drainDuration": "45s", "terminationDrainDuration": "5s", "discoveryAddress": "istiod.istio-system.svc:15012",
			"proxyAdminPort": 15000, "controlPlaneAuthPolicy": "MUTUAL_TLS", "statNameLength": 189, "concurrency": 2, "statusPort": 15020,
		},
	}
	delete(m, "POD_PORTS")
	for k, v := range meta {
		if v == "" {
			delete(m, k)
			continue
		}
		if strings.ContainsAny(v[:1], "{[\"") {
			var x any
			if err := json.Unmarshal([]byte(v), &x); err != nil {
				return err
			}
			m[k] = x
		} else {
			m[k] = v
		}
	}
	st, err := structpb.NewStruct(m)
	if err != nil {
		return err
	}
	firstIP, _, _ := strings.Cut(*ip, ",")
	node := &core.Node{
		Id:            strings.Join([]string{*ntype, firstIP, *name + "." + *ns, *ns + ".svc.cluster.local"}, "~"),
		Cluster:       app + "." + *ns,
		Metadata:      st,
		Locality:      &core.Locality{Region: "region1", Zone: "zone1", SubZone: "sub1"},
		UserAgentName: "envoy",
	}
	if *nodeFile != "" {
		b, _ := protojson.MarshalOptions{Indent: "  "}.Marshal(node)
		_ = os.WriteFile(*nodeFile, b, 0o644)
	}
	opts, err := dialOpts(*useTLS, *root, *sni, *certF, *keyF, *tokenF)
	if err != nil {
		return err
	}
	opts = append(opts, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<28)), grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", a)
	}))
	conn, err := grpc.NewClient("passthrough:///"+*addr, opts...)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), *maxWait)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "ClusterID", "Kubernetes")
	cl := discovery.NewAggregatedDiscoveryServiceClient(conn)

	d := &dumper{out: *out, node: node, delta: *mode == "delta", nack: map[string]bool{}, resources: map[string]map[string]*anypb.Any{},
		subs: map[string]map[string]bool{"EDS": {}, "RDS": {}, "ECDS": {}, "SDS": {}}, secrets: map[string]string{}, t0: time.Now()}
	_ = os.RemoveAll(*out)
	for _, n := range strings.Split(*nack, ",") {
		d.nack[n] = true
	}
	first := true
	activity := make(chan struct{}, 1000)
	recvErr := make(chan error, 1)
	lastVersion := map[string]string{}
	lastNonce := map[string]string{}
	errStatus := func(e string) *status.Status {
		if e == "" {
			return nil
		}
		return &status.Status{Code: 13, Message: e}
	}
	type rx struct {
		typ, ver, nonce, cp string
		names               []string
		res                 []*anypb.Any
		removed             []string
		raw                 proto.Message
	}
	rxc := make(chan rx, 100)
	if d.delta {
		stream, err := cl.DeltaAggregatedResources(ctx)
		if err != nil {
			return err
		}
		d.send = func(typ string, subscribe []string, nonce, version, errmsg string, initial bool) error {
			r := &discovery.DeltaDiscoveryRequest{TypeUrl: typ, ResourceNamesSubscribe: subscribe, ResponseNonce: nonce, ErrorDetail: errStatus(errmsg)}
			if first {
				r.Node = node
				first = false
			}
			d.log("request", map[string]any{"type": short(typ), "subscribe": subscribe, "nonce": nonce, "error": errmsg})
			return stream.Send(r)
		}
		go func() {
			for {
				r, err := stream.Recv()
				if err != nil {
					recvErr <- err
					return
				}
				x := rx{typ: r.TypeUrl, ver: r.SystemVersionInfo, nonce: r.Nonce, cp: r.GetControlPlane().GetIdentifier(), removed: r.RemovedResources, raw: r}
				for _, y := range r.Resources {
					x.names = append(x.names, y.Name)
					x.res = append(x.res, y.Resource)
				}
				rxc <- x
			}
		}()
	} else {
		stream, err := cl.StreamAggregatedResources(ctx)
		if err != nil {
			return err
		}
		d.send = func(typ string, subscribe []string, nonce, version, errmsg string, initial bool) error {
			s := short(typ)
			var names []string
			for n := range d.subs[s] {
				names = append(names, n)
			}
			sort.Strings(names)
			if nonce == "" {
				nonce = lastNonce[typ]
			}
			if errmsg == "" && version != "" {
				lastVersion[typ] = version
			}
			r := &discovery.DiscoveryRequest{TypeUrl: typ, ResourceNames: names, ResponseNonce: nonce, VersionInfo: lastVersion[typ], ErrorDetail: errStatus(errmsg)}
			if first {
				r.Node = node
				first = false
			}
			d.log("request", map[string]any{"type": s, "names": names, "nonce": nonce, "version": r.VersionInfo, "error": errmsg})
			return stream.Send(r)
		}
		go func() {
			for {
				r, err := stream.Recv()
				if err != nil {
					recvErr <- err
					return
				}
				lastNonce[r.TypeUrl] = r.Nonce
				x := rx{typ: r.TypeUrl, ver: r.VersionInfo, nonce: r.Nonce, cp: r.GetControlPlane().GetIdentifier(), raw: r, res: r.Resources}
				for _, y := range r.Resources {
					x.names = append(x.names, resName(r.TypeUrl, y))
				}
				rxc <- x
			}
		}()
	}
	if err := d.send(types["CDS"], nil, "", "", "", true); err != nil {
		return err
	}
	subsSent := *sub == ""
	timer := time.NewTimer(*wait)
loop:
	for {
		select {
		case x := <-rxc:
			timer.Reset(*wait)
			if err := d.onResponse(x.typ, x.ver, x.nonce, x.names, x.res, x.removed, x.cp, x.raw); err != nil {
				return err
			}
			if !subsSent && short(x.typ) == "LDS" {
				subsSent = true
				for _, s := range strings.Split(*sub, ",") {
					t, n, _ := strings.Cut(s, ":")
					var l []string
					if n != "" {
						l = []string{n}
						if d.subs[t] == nil {
							d.subs[t] = map[string]bool{}
						}
						d.subs[t][n] = true
					}
					if err := d.send(types[t], l, "", "", "", false); err != nil {
						return err
					}
				}
			}
		case err := <-recvErr:
			d.log("stream-end", map[string]any{"error": err.Error()})
			break loop
		case <-timer.C:
			break loop
		case <-activity:
		}
	}
	return d.write()
}

func (d *dumper) write() error {
	_ = os.MkdirAll(d.out, 0o755)
	mo := protojson.MarshalOptions{Multiline: true, Indent: " ", UseProtoNames: true}
	summary := map[string]any{}
	for s, rs := range d.resources {
		var names []string
		for n := range rs {
			names = append(names, n)
		}
		sort.Strings(names)
		var arr []json.RawMessage
		for _, n := range names {
			b, err := mo.Marshal(rs[n])
			if err != nil {
				b, _ = json.Marshal(map[string]any{"@type": rs[n].TypeUrl, "error": err.Error(), "bytes": len(rs[n].Value)})
				fmt.Fprintln(os.Stderr, s, n, err)
			}
			arr = append(arr, b)
		}
		b, err := json.MarshalIndent(arr, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(d.out, s+".json"), b, 0o644); err != nil {
			return err
		}
		summary[s] = names
	}
	summary["secret_refs"] = d.secrets
	b, _ := json.MarshalIndent(summary, "", " ")
	_ = os.WriteFile(filepath.Join(d.out, "SUMMARY.json"), b, 0o644)
	b, _ = json.MarshalIndent(d.transcript, "", " ")
	return os.WriteFile(filepath.Join(d.out, "TRANSCRIPT.json"), b, 0o644)
}

var (
	_ = endpoint.ClusterLoadAssignment{}
	_ = route.RouteConfiguration{}
)
