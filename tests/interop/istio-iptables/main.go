// SPDX-License-Identifier: Apache-2.0

// The istio-iptables command of the istio.io/istio module as a program of its own, to compare remora-init with.
package main

import (
	"os"

	"istio.io/istio/pkg/log"
	"istio.io/istio/tools/istio-iptables/pkg/cmd"
)

func main() {
	options := log.DefaultOptions()
	command := cmd.GetCommand(options)
	options.AttachCobraFlags(command)
	if err := command.Execute(); err != nil {
		os.Exit(255) // what pilot-agent ends with
	}
}
