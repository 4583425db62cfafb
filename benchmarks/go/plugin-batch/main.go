// The Go peer of an author who merges rows: those that wait for the sender share a frame.
package main

import (
	"time"

	"benchmarks/peer"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"
)

type batches struct{ peer.Frames }

func (b batches) Rows(n int) error {
	type row struct{ ms, n int64 }
	at := func(k int) (row, error) { return row{peer.StartMS + int64(k), int64(k)}, nil }
	return peer.Merge(n, at, func(rows []row, schema bool) error {
		times, counts := make([]time.Time, len(rows)), make([]int64, len(rows))
		for i, row := range rows {
			times[i], counts[i] = time.UnixMilli(row.ms), row.n
		}
		return b.Send(data.NewFrame("rows",
			data.NewField("time", nil, times), data.NewField("n", nil, counts)), schema)
	})
}

func (b batches) Mixed(n int, messages bool) error {
	at := func(k int) (peer.MixedRow, error) { return peer.MixedAt(k, messages) }
	return peer.Merge(n, at, func(rows []peer.MixedRow, schema bool) error {
		return b.Send(peer.MixedFrame(rows), schema)
	})
}

func main() {
	peer.Serve(func(sender *backend.StreamSender) peer.Encoder {
		return batches{peer.Frames{Sender: sender}}
	})
}
