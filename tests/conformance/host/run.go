package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
)

// run is one RunStream: its packets, and counts of how a browser would read them.
type run struct {
	group  string
	cancel context.CancelFunc
	opened time.Time

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	packets [][]byte
	schemas [][]byte // for each packet, the current schema: its own or an earlier one
	read    int      // where the next fetch starts
	first   float64  // ms from opening to the first packet
	ended   bool
	err     error // nil when the plugin ended the stream with OK
	held    bool
	rate    int      // bytes read per second; 0: no limit
	next    int      // the next expected number in column "n"
	columns []string // names and types of the current schema; nil: none yet
	schema  []byte   // its JSON
	counts  counts
}

// counts is the answer to "stats".
type counts struct {
	Packets int
	Rows    int
	Bytes   int
	Schemas int // packets with a schema
	Changes int // schemas whose names or types differ from the previous schema
	// Mismatches: data with another number of columns than the schema ("push message mismatch").
	Mismatches int
	// Guessed: data before any schema; a browser guesses its columns.
	Guessed int
	// Bad: invalid JSON, neither schema nor data, or columns of different lengths.
	Bad int
	// Missing: numbers skipped in column "n", counted if a rate is given.
	Missing int
}

func newRun(group string, initial []byte, held bool) *run {
	r := &run{group: group, changed: make(chan struct{}), opened: time.Now(), held: held}
	if initial != nil {
		r.inspect(initial)
		r.counts = counts{}
	}
	return r
}

// receive reads the stream to its end.
func (r *run) receive(ctx context.Context, stream pluginv2.Stream_RunStreamClient) {
	began := time.Now()
	for {
		if r.rate > 0 {
			r.mu.Lock()
			due := time.Duration(float64(r.counts.Bytes) / float64(r.rate) * float64(time.Second))
			r.mu.Unlock()
			time.Sleep(due - time.Since(began))
		}
		r.mu.Lock()
		held, changed := r.held, r.changed
		r.mu.Unlock()
		if held {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
			}
		}
		packet, err := stream.Recv()
		if err != nil {
			r.end(err)
			return
		}
		r.mu.Lock()
		if len(r.packets) == 0 {
			r.first = since(r.opened)
		}
		schema := r.inspect(packet.Data)
		if r.rate == 0 {
			r.packets = append(r.packets, packet.Data)
			r.schemas = append(r.schemas, schema)
		}
		r.notify()
		r.mu.Unlock()
	}
}

func (r *run) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if !errors.Is(err, io.EOF) {
		r.err = err
	}
	r.notify()
}

func (r *run) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// await waits until the condition, evaluated with the lock held, is true or ctx is done.
func (r *run) await(ctx context.Context, condition func() bool) error {
	for {
		r.mu.Lock()
		reached, changed := condition(), r.changed
		r.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inspect counts a packet as Grafana's browser code reads it, and returns the current schema.
func (r *run) inspect(packet []byte) []byte {
	r.counts.Packets++
	r.counts.Bytes += len(packet)
	var parts struct {
		Schema *struct {
			Fields []struct {
				Name string `json:"name"`
				Type string `json:"type"`
			} `json:"fields"`
		} `json:"schema"`
		Data *struct {
			Values [][]json.RawMessage `json:"values"`
		} `json:"data"`
	}
	if json.Unmarshal(packet, &parts) != nil || parts.Schema == nil && parts.Data == nil {
		r.counts.Bad++
		return r.schema
	}
	if parts.Schema != nil {
		columns := []string{}
		for _, field := range parts.Schema.Fields {
			columns = append(columns, field.Name+"\x00"+field.Type)
		}
		r.counts.Schemas++
		if r.columns != nil && !slices.Equal(columns, r.columns) {
			r.counts.Changes++
		}
		r.columns, r.schema = columns, schemaOf(packet)
	}
	if parts.Data != nil {
		r.inspectValues(parts.Data.Values)
	}
	return r.schema
}

func (r *run) inspectValues(values [][]json.RawMessage) {
	switch {
	case r.columns == nil:
		r.counts.Guessed++
	case len(values) != len(r.columns):
		r.counts.Mismatches++
	}
	if len(values) == 0 {
		return
	}
	r.counts.Rows += len(values[0])
	if index := slices.Index(r.columns, "n\x00number"); r.rate > 0 && index >= 0 {
		for _, value := range values[index] {
			if n, err := strconv.Atoi(string(value)); err == nil {
				r.counts.Missing += n - r.next
				r.next = n + 1
			}
		}
	}
	for _, column := range values {
		if len(column) != len(values[0]) {
			r.counts.Bad++
			return
		}
	}
}
