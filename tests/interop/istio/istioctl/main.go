// SPDX-License-Identifier: Apache-2.0
package main

import (
	"istio.io/istio/istioctl/cmd"
	"os"
)

func main() {
	rootCmd := cmd.GetRootCmd(os.Args[1:])
	if err := rootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}
