package main

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	"google.golang.org/grpc/status"
)

type channelArguments struct {
	envelope
	Ctx     json.RawMessage   `json:"ctx"`
	Path    string            `json:"path"`
	Data    blob              `json:"data"`
	Headers map[string]string `json:"headers"`
}

// subscribe answers the status and the initial data, as JSON.
func subscribe(h *host, ctx context.Context, arguments *channelArguments) (answer, error) {
	p, message, err := h.prepare(arguments.Ctx)
	if err != nil {
		return nil, err
	}
	reply, err := p.stream.SubscribeStream(ctx, &pluginv2.SubscribeStreamRequest{
		PluginContext: message, Path: arguments.Path, Data: arguments.Data, Headers: arguments.Headers,
	})
	if err != nil {
		return nil, err
	}
	data, err := embedded(reply.Data)
	return answer{"status": reply.Status.String(), "data": data}, err
}

func publish(h *host, ctx context.Context, arguments *channelArguments) (answer, error) {
	p, message, err := h.prepare(arguments.Ctx)
	if err != nil {
		return nil, err
	}
	reply, err := p.stream.PublishStream(ctx, &pluginv2.PublishStreamRequest{
		PluginContext: message, Path: arguments.Path, Data: arguments.Data, Headers: arguments.Headers,
	})
	if err != nil {
		return nil, err
	}
	data, err := embedded(reply.Data)
	return answer{"status": reply.Status.String(), "data": data}, err
}

type runArguments struct {
	channelArguments
	Run     string `json:"run"`     // default: the path
	Initial blob   `json:"initial"` // SubscribeStream's data, which a browser gets before packets
	Hold    bool   `json:"hold"`    // read nothing until "resume"
	Rate    int    `json:"rate"`    // bytes per second; packets are counted and not stored
}

func openRun(h *host, _ context.Context, arguments *runArguments) (answer, error) {
	if arguments.Run == "" {
		arguments.Run = arguments.Path
	}
	_, err := h.open(arguments, "")
	return nil, err
}

// open starts a RunStream and the goroutine that reads it. It outlives the command.
func (h *host) open(arguments *runArguments, group string) (*run, error) {
	p, message, err := h.prepare(arguments.Ctx)
	if err != nil {
		return nil, err
	}
	opened := newRun(group, arguments.Initial, arguments.Hold)
	opened.rate = arguments.Rate
	ctx, cancel := context.WithCancel(context.Background())
	opened.cancel = cancel
	h.mu.Lock()
	if old := h.runs[arguments.Run]; old != nil && !old.over() {
		h.mu.Unlock()
		cancel()
		return nil, failf("Host", "run %q is still open", arguments.Run)
	}
	h.runs[arguments.Run] = opened
	h.mu.Unlock()
	go func() {
		defer cancel()
		stream, err := p.stream.RunStream(ctx, &pluginv2.RunStreamRequest{
			PluginContext: message, Path: arguments.Path, Data: arguments.Data, Headers: arguments.Headers,
		})
		if err != nil {
			opened.end(err)
			return
		}
		opened.receive(ctx, stream)
	}()
	return opened, nil
}

func (r *run) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ended
}

func (h *host) find(name string) (*run, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if found := h.runs[name]; found != nil {
		return found, nil
	}
	return nil, failf("Host", "unknown run %q; runs: %q", name, slices.Sorted(maps.Keys(h.runs)))
}

// members returns the runs of a group.
func (h *host) members(group string) ([]*run, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := []*run{}
	for _, one := range h.runs {
		if one.group == group {
			found = append(found, one)
		}
	}
	if group == "" || len(found) == 0 {
		return nil, failf("Host", "unknown group %q", group)
	}
	return found, nil
}

type packetsArguments struct {
	envelope
	Run       string `json:"run"`
	N         int    `json:"n"`    // wait until so many were not fetched yet
	From      *int   `json:"from"` // default: where the last fetch ended
	TimeoutMS int64  `json:"timeout_ms"`
	Text      bool   `json:"text"`   // packets as strings, unchanged
	Decode    bool   `json:"decode"` // also "frames": each packet decoded by the SDK with its schema
}

// packets answers early, with fewer packets, if the stream has ended; it fails after the timeout.
func packets(h *host, ctx context.Context, arguments *packetsArguments) (answer, error) {
	r, err := h.find(arguments.Run)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx, arguments.TimeoutMS)
	defer cancel()
	start := func() int {
		if arguments.From != nil {
			return min(max(*arguments.From, 0), len(r.packets))
		}
		return r.read
	}
	err = r.await(ctx, func() bool { return r.ended || len(r.packets)-start() >= arguments.N })
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		return nil, failf("Timeout", "run %q: %d of %d packets arrived in time",
			arguments.Run, len(r.packets)-start(), arguments.N)
	}
	from := start()
	texts, frames := []any{}, []*frameText{}
	for i := from; i < len(r.packets); i++ {
		text := any(string(r.packets[i]))
		if !arguments.Text {
			if !json.Valid(r.packets[i]) {
				return nil, failf("Packet", "packet %d is not JSON: %.200q", i, r.packets[i])
			}
			text = json.RawMessage(r.packets[i])
		}
		texts = append(texts, text)
		if arguments.Decode {
			frame, err := readPacket(r.packets[i], r.schemas[i])
			if err != nil {
				return nil, err
			}
			frames = append(frames, frame)
		}
	}
	r.read = len(r.packets)
	result := r.state()
	result["packets"], result["from"] = texts, from
	if arguments.Decode {
		result["frames"] = frames
	}
	return result, nil
}

func withTimeout(ctx context.Context, ms int64) (context.Context, context.CancelFunc) {
	if ms == 0 {
		ms = 10_000
	}
	return context.WithTimeout(ctx, milliseconds(ms))
}

// state is the stream's state; the caller holds the lock.
func (r *run) state() answer {
	result := answer{"ended": r.ended, "error": nil, "code": nil, "first_ms": nil, "details": nil}
	if r.ended {
		result["code"] = status.Code(r.err).String()
	}
	if r.err != nil {
		reply := describe(r.err)
		result["error"], result["details"] = reply["error"], reply["details"]
	}
	if len(r.packets) > 0 {
		result["first_ms"] = r.first
	}
	return result
}

type statsArguments struct {
	envelope
	Run   string `json:"run"`
	Group string `json:"group"`
}

// stats answers the counts of one run, or the sums of a group.
func stats(h *host, _ context.Context, arguments *statsArguments) (answer, error) {
	var runs []*run
	var err error
	if arguments.Group != "" {
		runs, err = h.members(arguments.Group)
	} else {
		var one *run
		one, err = h.find(arguments.Run)
		runs = []*run{one}
	}
	if err != nil {
		return nil, err
	}
	var sum counts
	ended := 0
	for _, one := range runs {
		one.mu.Lock()
		sum.add(one.counts)
		if one.ended {
			ended++
		}
		one.mu.Unlock()
	}
	return answer{
		"missing": sum.Missing, "packets": sum.Packets, "rows": sum.Rows, "bytes": sum.Bytes, "schemas": sum.Schemas,
		"changes": sum.Changes, "mismatches": sum.Mismatches, "guessed": sum.Guessed, "bad": sum.Bad,
		"runs": len(runs), "ended": ended,
	}, nil
}

type nameArguments struct {
	envelope
	Run string `json:"run"`
}

func resume(h *host, _ context.Context, arguments *nameArguments) (answer, error) {
	r, err := h.find(arguments.Run)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	r.notify()
	return nil, nil
}

// cancelRun cancels the gRPC call and answers when it has ended.
func cancelRun(h *host, ctx context.Context, arguments *nameArguments) (answer, error) {
	r, err := h.find(arguments.Run)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	r.cancel()
	if err := r.await(ctx, func() bool { return r.ended }); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	result := r.state()
	result["ms"], result["packets"] = since(began), len(r.packets)
	return result, nil
}

type manyArguments struct {
	envelope
	Ctx       json.RawMessage `json:"ctx"`
	Pattern   string          `json:"pattern"` // path and name of each run; %d is 0 … n-1
	N         int             `json:"n"`
	Group     string          `json:"group"`   // default: the pattern
	Waiting   int             `json:"waiting"` // most runs that wait for a first packet; 0: all
	TimeoutMS int64           `json:"timeout_ms"`
}

// openMany opens n streams and answers when each has received its first packet.
func openMany(h *host, ctx context.Context, arguments *manyArguments) (answer, error) {
	if !strings.Contains(arguments.Pattern, "%d") || arguments.N < 1 {
		return nil, failf("Host", "openmany: expected a pattern with %%d and n >= 1, got %q and %d",
			arguments.Pattern, arguments.N)
	}
	if arguments.Group == "" {
		arguments.Group = arguments.Pattern
	}
	ctx, cancel := withTimeout(ctx, arguments.TimeoutMS)
	defer cancel()
	began := time.Now()
	runs := []*run{}
	for i := range arguments.N {
		if arguments.Waiting > 0 && i >= arguments.Waiting {
			one := runs[i-arguments.Waiting]
			if one.await(ctx, func() bool { return one.ended || len(one.packets) > 0 }) != nil {
				return nil, failf("Timeout", "stream %d had no first packet in time", i-arguments.Waiting)
			}
		}
		path := strings.ReplaceAll(arguments.Pattern, "%d", strconv.Itoa(i))
		one := &runArguments{Run: path}
		one.Path, one.Ctx = path, arguments.Ctx
		opened, err := h.open(one, arguments.Group)
		if err != nil {
			return nil, err
		}
		runs = append(runs, opened)
	}
	for i, one := range runs {
		if one.await(ctx, func() bool { return one.ended || len(one.packets) > 0 }) != nil {
			return nil, failf("Timeout", "%d of %d streams had a first packet in time", i, len(runs))
		}
		one.mu.Lock()
		ended, err, came := one.ended, one.err, len(one.packets)
		one.mu.Unlock()
		if ended && err != nil {
			return nil, err
		}
		if came == 0 {
			return nil, failf("Packet", "stream %d ended without a packet", i)
		}
	}
	return answer{"opened_ms": since(began), "group": arguments.Group}, nil
}

type groupArguments struct {
	envelope
	Group string `json:"group"`
}

// cancelMany cancels a group's streams and counts their status codes.
func cancelMany(h *host, ctx context.Context, arguments *groupArguments) (answer, error) {
	runs, err := h.members(arguments.Group)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for _, one := range runs {
		one.cancel()
	}
	codes := map[string]int{}
	for _, one := range runs {
		if err := one.await(ctx, func() bool { return one.ended }); err != nil {
			return nil, err
		}
		codes[status.Code(one.err).String()]++
	}
	return answer{"ms": since(began), "n": len(runs), "codes": codes}, nil
}

func (c *counts) add(other counts) {
	c.Packets += other.Packets
	c.Rows += other.Rows
	c.Bytes += other.Bytes
	c.Schemas += other.Schemas
	c.Changes += other.Changes
	c.Mismatches += other.Mismatches
	c.Guessed += other.Guessed
	c.Bad += other.Bad
	c.Missing += other.Missing
}
