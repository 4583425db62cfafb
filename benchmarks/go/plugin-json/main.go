// The optimized Go peer. JSON is appended to one buffer a stream, which gRPC has copied when SendBytes
// returns, and rows that wait for the sender share a packet.
package main

import (
	"strconv"
	"time"

	"benchmarks/peer"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
)

const maxRows = 1000 // of a merged packet

type packets struct {
	sender *backend.StreamSender
	buffer []byte
}

func (p *packets) open(schema bool, frame, kind, goType string, names ...string) []byte {
	out := append(p.buffer[:0], '{')
	if schema {
		out = append(out, `"schema":{"name":"`+frame+`","fields":[`...)
		out = append(out, `{"name":"time","type":"time","typeInfo":{"frame":"time.Time"}}`...)
		for _, name := range names {
			out = append(out, `,{"name":"`+name+`","type":"`+kind+`","typeInfo":{"frame":"`+goType+`"}}`...)
		}
		out = append(out, `]},`...)
	}
	return append(out, `"data":{"values":[[`...)
}

func (p *packets) close(out []byte) error {
	p.buffer = append(out, `]]}}`...)
	return p.sender.SendBytes(p.buffer)
}

func (p *packets) Burst(k, rows, fields int, schema bool) error {
	var names []string
	if schema {
		for j := 1; j < fields; j++ {
			names = append(names, "v"+strconv.Itoa(j))
		}
	}
	out := appendInts(p.open(schema, "burst", "number", "float64", names...), peer.StartMS+int64(k), rows)
	for j := 1; j < fields; j++ {
		out = append(out, `],[`...)
		offset := peer.Offset(k) + j
		for i, value := range peer.Table[offset : offset+rows] {
			if i > 0 {
				out = append(out, ',')
			}
			out = strconv.AppendFloat(out, value, 'f', -1, 64)
		}
	}
	return p.close(out)
}

func (p *packets) Tick(now time.Time, schema bool) error {
	out := strconv.AppendInt(p.open(schema, "tick", "number", "int64", "ns"), now.UnixMilli(), 10)
	return p.close(strconv.AppendInt(append(out, `],[`...), now.UnixNano(), 10))
}

// Rows are made in one goroutine and sent in another, so that queued rows can be merged.
func (p *packets) Rows(n int) error {
	type row struct{ ms, n int64 }
	made, stop := make(chan row, maxRows), make(chan struct{})
	defer close(stop)
	go func() {
		defer close(made)
		for k := range int64(n) {
			select {
			case made <- row{peer.StartMS + k, k}:
			case <-stop:
				return
			}
		}
	}()
	schema, counts := true, []byte(nil)
	for first := range made {
		out := strconv.AppendInt(p.open(schema, "rows", "number", "int64", "n"), first.ms, 10)
		counts = strconv.AppendInt(counts[:0], first.n, 10)
		for range min(len(made), maxRows-1) {
			next := <-made
			out = strconv.AppendInt(append(out, ','), next.ms, 10)
			counts = strconv.AppendInt(append(counts, ','), next.n, 10)
		}
		if err := p.close(append(append(out, `],[`...), counts...)); err != nil {
			return err
		}
		schema = false
	}
	return nil
}

func (p *packets) Columns(from, rows int, schema bool) error {
	out := appendInts(p.open(schema, "rows", "number", "int64", "n"), peer.StartMS+int64(from), rows)
	return p.close(appendInts(append(out, `],[`...), int64(from), rows))
}

func appendInts(out []byte, from int64, count int) []byte {
	for i := range int64(count) {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, from+i, 10)
	}
	return out
}

func main() {
	peer.Serve(func(sender *backend.StreamSender) peer.Encoder { return &packets{sender: sender} })
}
