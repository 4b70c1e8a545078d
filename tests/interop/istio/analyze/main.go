// SPDX-License-Identifier: Apache-2.0
// All of Istio's analyzers over YAML files, each a world of its own, as JSON: file → what was found. `istioctl analyze --use-kube=false` leaves
// out the analyzers that look at Services and Pods; here the files may hold these, too.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/local"
	"istio.io/istio/pkg/log"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(names []string) error {
	quiet := log.DefaultOptions()
	quiet.OutputPaths = []string{"stderr"}
	if err := log.Configure(quiet); err != nil {
		return err
	}
	all := make(map[string]any)
	for _, name := range names {
		found, err := analyze(name)
		if err != nil {
			found = []map[string]any{{"code": "unreadable", "level": "Error", "origin": "", "message": err.Error()}}
		}
		all[name] = found
	}
	text, err := json.MarshalIndent(all, "", "\t")
	fmt.Println(string(text))
	return err
}

func analyze(name string) ([]map[string]any, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sa := local.NewIstiodAnalyzer(analyzers.AllCombined(), "", "istio-system", nil)
	if err := sa.AddTestReaderKubeSource([]local.ReaderSource{{Name: name, Reader: f}}); err != nil {
		return nil, err
	}
	stop := make(chan struct{})
	defer close(stop)
	result, err := sa.Analyze(stop)
	if err != nil {
		return nil, err
	}
	found := make([]map[string]any, 0, len(result.Messages))
	for _, m := range result.Messages {
		found = append(found, m.Unstructured(true))
	}
	return found, nil
}
