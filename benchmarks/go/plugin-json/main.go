// The optimized Go peer. JSON is appended to one buffer a stream, which gRPC has copied when SendBytes
// returns, and rows that wait for the sender share a packet.
package main

import (
	"strconv"
	"time"

	"benchmarks/peer"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
)

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

func (p *packets) Rows(n int) error {
	type row struct{ ms, n int64 }
	at := func(k int) (row, error) { return row{peer.StartMS + int64(k), int64(k)}, nil }
	return peer.Merge(n, at, func(rows []row, schema bool) error {
		out := p.open(schema, "rows", "number", "int64", "n")
		out = appendColumn(out, rows, func(out []byte, row row) []byte { return strconv.AppendInt(out, row.ms, 10) })
		out = append(out, `],[`...)
		out = appendColumn(out, rows, func(out []byte, row row) []byte { return strconv.AppendInt(out, row.n, 10) })
		return p.close(out)
	})
}

const mixedSchema = `{"schema":{"name":"mixed","fields":[` +
	`{"name":"time","type":"time","typeInfo":{"frame":"time.Time"}},` +
	`{"name":"n","type":"number","typeInfo":{"frame":"int64"}},` +
	`{"name":"host","type":"string","typeInfo":{"frame":"string"}},` +
	`{"name":"v1","type":"number","typeInfo":{"frame":"float64","nullable":true}},` +
	`{"name":"ok","type":"boolean","typeInfo":{"frame":"bool"}},` +
	`{"name":"note","type":"string","typeInfo":{"frame":"string","nullable":true}},` +
	`{"name":"size","type":"number","typeInfo":{"frame":"int64"}},` +
	`{"name":"v2","type":"number","typeInfo":{"frame":"float64"}}]},`

// mixedColumns write one value each. strconv.AppendQuote is right for these texts, which are ASCII.
var mixedColumns = []func([]byte, peer.MixedRow) []byte{
	func(out []byte, row peer.MixedRow) []byte { return strconv.AppendInt(out, row.Time, 10) },
	func(out []byte, row peer.MixedRow) []byte { return strconv.AppendInt(out, row.N, 10) },
	func(out []byte, row peer.MixedRow) []byte { return strconv.AppendQuote(out, row.Host) },
	func(out []byte, row peer.MixedRow) []byte {
		if row.V1 == nil {
			return append(out, "null"...)
		}
		return strconv.AppendFloat(out, *row.V1, 'f', -1, 64)
	},
	func(out []byte, row peer.MixedRow) []byte { return strconv.AppendBool(out, row.OK) },
	func(out []byte, row peer.MixedRow) []byte {
		if row.Note == nil {
			return append(out, "null"...)
		}
		return strconv.AppendQuote(out, *row.Note)
	},
	func(out []byte, row peer.MixedRow) []byte { return strconv.AppendInt(out, row.Size, 10) },
	func(out []byte, row peer.MixedRow) []byte { return strconv.AppendFloat(out, row.V2, 'f', -1, 64) },
}

func (p *packets) Mixed(n int, messages bool) error {
	at := func(k int) (peer.MixedRow, error) { return peer.MixedAt(k, messages) }
	return peer.Merge(n, at, func(rows []peer.MixedRow, schema bool) error {
		out := append(p.buffer[:0], '{')
		if schema {
			out = append(p.buffer[:0], mixedSchema...)
		}
		out = append(out, `"data":{"values":[[`...)
		for i, write := range mixedColumns {
			if i > 0 {
				out = append(out, `],[`...)
			}
			out = appendColumn(out, rows, write)
		}
		return p.close(out)
	})
}

func appendColumn[Row any](out []byte, rows []Row, write func([]byte, Row) []byte) []byte {
	for i, row := range rows {
		if i > 0 {
			out = append(out, ',')
		}
		out = write(out, row)
	}
	return out
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
