// The Go peer: sends frames with SendFrame, as in the SDK's documentation.
package main

import (
	"benchmarks/peer"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
)

func main() {
	peer.Serve(func(sender *backend.StreamSender) peer.Encoder { return peer.Frames{Sender: sender} })
}
