// The Go peer: sends frames with SendFrame, as in the SDK's documentation.
package main

import (
	"strconv"
	"time"

	"benchmarks/peer"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"
)

type frames struct{ sender *backend.StreamSender }

func (f frames) send(frame *data.Frame, schema bool) error {
	include := data.IncludeDataOnly
	if schema {
		include = data.IncludeAll
	}
	return f.sender.SendFrame(frame, include)
}

func (f frames) Burst(k, rows, fields int, schema bool) error {
	columns := make([]*data.Field, fields)
	columns[0] = data.NewField("time", nil, times(k, rows))
	for j := 1; j < fields; j++ {
		values := make([]float64, rows)
		copy(values, peer.Table[peer.Offset(k)+j:])
		columns[j] = data.NewField("v"+strconv.Itoa(j), nil, values)
	}
	return f.send(data.NewFrame("burst", columns...), schema)
}

func (f frames) Tick(now time.Time, schema bool) error {
	return f.send(data.NewFrame("tick",
		data.NewField("time", nil, []time.Time{now}),
		data.NewField("ns", nil, []int64{now.UnixNano()})), schema)
}

// Rows sends a frame a row: SendFrame has no other form for an author with single rows.
func (f frames) Rows(n int) error {
	for k := range n {
		if err := f.Columns(k, 1, k == 0); err != nil {
			return err
		}
	}
	return nil
}

func (f frames) Columns(from, rows int, schema bool) error {
	counts := make([]int64, rows)
	for i := range counts {
		counts[i] = int64(from + i)
	}
	return f.send(data.NewFrame("rows",
		data.NewField("time", nil, times(from, rows)), data.NewField("n", nil, counts)), schema)
}

func times(from, rows int) []time.Time {
	column := make([]time.Time, rows)
	base := time.UnixMilli(peer.StartMS + int64(from))
	for i := range column {
		column[i] = base.Add(time.Duration(i) * time.Millisecond)
	}
	return column
}

func main() {
	peer.Serve(func(sender *backend.StreamSender) peer.Encoder { return frames{sender} })
}
