// Package peer is a data source on grafana-plugin-sdk-go with the streams that the load client
// requests of every measured plugin. An Encoder makes the packets: see plugin and plugin-json.
package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/data"
)

const (
	// TableSize is a power of two, so that a mask gives an offset into the table.
	TableSize = 1 << 16
	// StartMS is the time of the first row of a burst; the client checks order by it.
	StartMS = 1_700_000_000_000
	// ColumnRows is how many rows a packet of columns/<n> holds.
	ColumnRows = 5000
)

// Table holds the measured values; it is longer than TableSize so that a slice never wraps.
var Table [TableSize + 1<<15]float64

var hosts [1024]string

func init() {
	random := rand.New(rand.NewSource(1))
	for i := range Table {
		Table[i] = random.Float64() * 100
	}
	for i := range hosts {
		hosts[i] = "host-" + strconv.Itoa(i)
	}
}

// Offset is the index in Table of the first value of frame k.
func Offset(k int) int { return (k * 7) & (TableSize - 1) }

// Encoder makes and sends the packets of one stream; each stream has its own.
type Encoder interface {
	// Burst sends frame k: a time column and fields-1 float64 columns.
	Burst(k, rows, fields int, schema bool) error
	// Tick sends one row: the time, and the time in Unix nanoseconds.
	Tick(now time.Time, schema bool) error
	// Rows sends n rows (time, n = 0, 1, 2 …) that are made one by one.
	Rows(n int) error
	// Mixed sends n rows of several types, made one by one, or read from JSON messages.
	Mixed(n int, messages bool) error
	// Columns sends rows from..from+rows of the same table, made as columns.
	Columns(from, rows int, schema bool) error
}

type peer struct {
	encoder func(*backend.StreamSender) Encoder
	ticking atomic.Int64
	done    sync.Map
}

// Serve runs the plugin process with datasource.Manage.
func Serve(encoder func(*backend.StreamSender) Encoder) {
	shared := &peer{encoder: encoder}
	factory := func(context.Context, backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
		return shared, nil
	}
	if err := datasource.Manage("bench-datasource", factory, datasource.ManageOpts{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (p *peer) CheckHealth(context.Context, *backend.CheckHealthRequest) (*backend.CheckHealthResult, error) {
	return &backend.CheckHealthResult{Status: backend.HealthStatusOk, Message: "ok"}, nil
}

func (p *peer) QueryData(_ context.Context, req *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	resp := backend.NewQueryDataResponse()
	for _, q := range req.Queries {
		var model struct {
			Rows int `json:"rows"`
		}
		if err := json.Unmarshal(q.JSON, &model); err != nil {
			return nil, err
		}
		resp.Responses[q.RefID] = backend.DataResponse{Frames: data.Frames{table(q.TimeRange.From, model.Rows)}}
	}
	return resp, nil
}

func table(from time.Time, rows int) *data.Frame {
	times, values, names := make([]time.Time, rows), make([]float64, rows), make([]string, rows)
	for i := range times {
		times[i] = from.Add(time.Duration(i) * time.Millisecond)
		values[i] = Table[i&(TableSize-1)]
		names[i] = hosts[i&1023]
	}
	return data.NewFrame("q",
		data.NewField("time", nil, times), data.NewField("value", nil, values), data.NewField("host", nil, names))
}

func (p *peer) SubscribeStream(context.Context, *backend.SubscribeStreamRequest) (*backend.SubscribeStreamResponse, error) {
	return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusOK}, nil
}

func (p *peer) PublishStream(_ context.Context, req *backend.PublishStreamRequest) (*backend.PublishStreamResponse, error) {
	var answer int64
	if req.Path == "active" {
		answer = p.ticking.Load()
	} else if ended, ok := p.done.LoadAndDelete(strings.TrimPrefix(req.Path, "done/")); ok {
		answer = ended.(int64)
	}
	return &backend.PublishStreamResponse{
		Status: backend.PublishStreamStatusOK, Data: []byte(strconv.FormatInt(answer, 10)),
	}, nil
}

func (p *peer) RunStream(ctx context.Context, req *backend.RunStreamRequest, sender *backend.StreamSender) error {
	parts, encoder := strings.Split(req.Path, "/"), p.encoder(sender)
	switch {
	case parts[0] == "burst" && len(parts) > 2:
		if len(parts) > 3 {
			defer func() { p.done.Store(parts[3], time.Now().UnixNano()) }()
		}
		rows, fields, _ := strings.Cut(parts[1], "x")
		return burst(encoder, number(parts[2]), number(rows), number(fields))
	case parts[0] == "rows" && len(parts) == 2:
		return encoder.Rows(number(parts[1]))
	case (parts[0] == "mixed" || parts[0] == "messages") && len(parts) == 2:
		return encoder.Mixed(number(parts[1]), parts[0] == "messages")
	case parts[0] == "columns" && len(parts) == 2:
		n := number(parts[1])
		for k := 0; k < n; k += ColumnRows {
			if err := encoder.Columns(k, min(ColumnRows, n-k), k == 0); err != nil {
				return err
			}
		}
		return nil
	case parts[0] == "tick" && len(parts) > 1:
		p.ticking.Add(1)
		defer p.ticking.Add(-1)
		return every(ctx, parts[1], func(k int) error { return encoder.Tick(time.Now(), k == 0) })
	case parts[0] == "fan" && len(parts) == 3:
		rows := number(parts[2])
		return every(ctx, parts[1], func(k int) error { return encoder.Burst(k, rows, 5, k == 0) })
	case parts[0] == "wait" && len(parts) == 2:
		defer func() { p.done.Store(parts[1], time.Now().UnixNano()) }()
		if err := encoder.Tick(time.Now(), true); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
	return errors.New("unknown path " + req.Path)
}

func burst(encoder Encoder, n, rows, fields int) error {
	for k := range n {
		if err := encoder.Burst(k, rows, fields, k == 0); err != nil {
			return err
		}
	}
	return nil
}

func every(ctx context.Context, hz string, send func(k int) error) error {
	rate, err := strconv.ParseFloat(hz, 64)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer ticker.Stop()
	for k := 0; ; k++ {
		if err := send(k); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// number is 0 for text that is not a number: the stream ends, and the client reports missing packets.
func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}
