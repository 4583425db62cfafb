package peer

import (
	"strconv"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// Frames is an Encoder that sends frames with SendFrame, as in the SDK's documentation.
type Frames struct{ Sender *backend.StreamSender }

// Send sends a frame, with its schema or without.
func (f Frames) Send(frame *data.Frame, schema bool) error {
	include := data.IncludeDataOnly
	if schema {
		include = data.IncludeAll
	}
	return f.Sender.SendFrame(frame, include)
}

func (f Frames) Burst(k, rows, fields int, schema bool) error {
	columns := make([]*data.Field, fields)
	columns[0] = data.NewField("time", nil, times(k, rows))
	for j := 1; j < fields; j++ {
		values := make([]float64, rows)
		copy(values, Table[Offset(k)+j:])
		columns[j] = data.NewField("v"+strconv.Itoa(j), nil, values)
	}
	return f.Send(data.NewFrame("burst", columns...), schema)
}

func (f Frames) Tick(now time.Time, schema bool) error {
	return f.Send(data.NewFrame("tick",
		data.NewField("time", nil, []time.Time{now}),
		data.NewField("ns", nil, []int64{now.UnixNano()})), schema)
}

// Rows sends a frame a row: SendFrame has no other form for an author with single rows.
func (f Frames) Rows(n int) error {
	for k := range n {
		if err := f.Columns(k, 1, k == 0); err != nil {
			return err
		}
	}
	return nil
}

func (f Frames) Columns(from, rows int, schema bool) error {
	counts := make([]int64, rows)
	for i := range counts {
		counts[i] = int64(from + i)
	}
	return f.Send(data.NewFrame("rows",
		data.NewField("time", nil, times(from, rows)), data.NewField("n", nil, counts)), schema)
}

// Mixed sends a frame a row, as Rows does.
func (f Frames) Mixed(n int, messages bool) error {
	for k := range n {
		row, err := MixedAt(k, messages)
		if err != nil {
			return err
		}
		if err := f.Send(MixedFrame([]MixedRow{row}), k == 0); err != nil {
			return err
		}
	}
	return nil
}

func times(from, rows int) []time.Time {
	column := make([]time.Time, rows)
	base := time.UnixMilli(StartMS + int64(from))
	for i := range column {
		column[i] = base.Add(time.Duration(i) * time.Millisecond)
	}
	return column
}
