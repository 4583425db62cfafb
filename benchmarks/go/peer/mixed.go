package peer

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

// MixedRow is a row of the stream mixed: columns of several types, of which two may be null.
type MixedRow struct {
	Time int64    `json:"time"`
	N    int64    `json:"n"`
	Host string   `json:"host"`
	V1   *float64 `json:"v1"`
	OK   bool     `json:"ok"`
	Note *string  `json:"note"`
	Size int64    `json:"size"`
	V2   float64  `json:"v2"`
}

// MixedPeriod is the number of rows after which all columns except time and n repeat.
const MixedPeriod = 1050

var (
	mixed      [MixedPeriod]MixedRow
	mixedTails [MixedPeriod][]byte // what follows time and n in a message
)

func init() {
	for k := range mixed {
		row := MixedRow{Host: fmt.Sprintf("host-%d", k%50), OK: k%2 == 0,
			Size: int64(k * 7 % 1000), V2: Table[k+1]}
		if k%7 > 0 {
			value := Table[k]
			row.V1 = &value
		}
		if k%3 == 0 {
			note := fmt.Sprintf("note %d", k%50)
			row.Note = &note
		}
		mixed[k] = row
		whole, err := json.Marshal(row)
		if err != nil {
			panic(err)
		}
		mixedTails[k] = whole[len(`{"time":0,"n":0`):]
	}
}

// MixedAt is row k; with messages it is read from a JSON message, as from a broker.
func MixedAt(k int, messages bool) (MixedRow, error) {
	if !messages {
		row := mixed[k%MixedPeriod]
		row.Time, row.N = StartMS+int64(k), int64(k)
		return row, nil
	}
	message := strconv.AppendInt(append(make([]byte, 0, 160), `{"time":`...), StartMS+int64(k), 10)
	message = strconv.AppendInt(append(message, `,"n":`...), int64(k), 10)
	var row MixedRow
	err := json.Unmarshal(append(message, mixedTails[k%MixedPeriod]...), &row)
	return row, err
}

// MixedFrame is a frame of rows.
func MixedFrame(rows []MixedRow) *data.Frame {
	n := len(rows)
	times, counts, hosts := make([]time.Time, n), make([]int64, n), make([]string, n)
	v1, ok, notes := make([]*float64, n), make([]bool, n), make([]*string, n)
	sizes, v2 := make([]int64, n), make([]float64, n)
	for i, row := range rows {
		times[i], counts[i], hosts[i] = time.UnixMilli(row.Time), row.N, row.Host
		v1[i], ok[i], notes[i], sizes[i], v2[i] = row.V1, row.OK, row.Note, row.Size, row.V2
	}
	return data.NewFrame("mixed",
		data.NewField("time", nil, times), data.NewField("n", nil, counts),
		data.NewField("host", nil, hosts), data.NewField("v1", nil, v1),
		data.NewField("ok", nil, ok), data.NewField("note", nil, notes),
		data.NewField("size", nil, sizes), data.NewField("v2", nil, v2))
}

// MaxMerged is how many waiting rows share a packet of an Encoder that merges them.
const MaxMerged = 1000

// Merge makes n rows in one goroutine and calls send in another one with all rows that wait.
func Merge[Row any](n int, at func(k int) (Row, error), send func(rows []Row, schema bool) error) error {
	made, stop := make(chan Row, MaxMerged), make(chan struct{})
	var failed error
	defer close(stop)
	go func() {
		defer close(made)
		for k := range n {
			row, err := at(k)
			if err != nil {
				failed = err // read after made is closed
				return
			}
			select {
			case made <- row:
			case <-stop:
				return
			}
		}
	}()
	schema, rows := true, make([]Row, 0, MaxMerged)
	for first := range made {
		rows = append(rows[:0], first)
		for range min(len(made), MaxMerged-1) {
			rows = append(rows, <-made)
		}
		if err := send(rows, schema); err != nil {
			return err
		}
		schema = false
	}
	return failed
}
