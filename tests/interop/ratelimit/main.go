// SPDX-License-Identifier: Apache-2.0

// The Redis that envoyproxy/ratelimit keeps its counters in: miniredis, in memory, on the port that is given.
package main

import (
	"os"
	"os/signal"

	"github.com/alicebob/miniredis/v2"
)

func main() {
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr("127.0.0.1:" + os.Args[1]); err != nil {
		panic(err)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt)
	<-end
	server.Close()
}
