// The conformance host starts one plugin executable exactly as Grafana does (HashiCorp's go-plugin,
// the SDK's handshake and clients) and is driven by lines of JSON: tests/conformance/driver.py.
//
// Each line on stdin is a command {"id":1,"do":"query",…}; each line on stdout an answer
// {"id":1,"ok":true,…} or {"id":1,"ok":false,"error":"…","code":"NotFound"}. The code is the gRPC
// status name if the plugin failed the call, or: "Host" for an invalid command; "Start" if go-plugin
// could not start the plugin; "Frame" and "Packet" for bytes that Grafana could not decode; "Timeout"
// for a wait that timed out. Unknown argument names are errors. Every command runs in its own
// goroutine. When stdin closes, the plugin is stopped and the program ends.
//
// Any command takes deadline_ms (a gRPC deadline; Grafana sets none) and metadata (gRPC headers).
// Commands and their arguments (? = optional):
//
//	ping                                       the pid of this program
//	start     exec args? env? dir? automtls? timeout_ms?
//	          env: "full" this program's (default), "empty" only go-plugin's variables, or a map
//	stop | exited timeout_ms? | shutdown timeout_ms? | logs | abort call
//	health    ctx? headers?
//	query     ctx? queries? format? headers? raw? browser?
//	chunked   as query: the list of chunks
//	alert     as query: the series that an alert rule evaluates, or why Grafana refuses the frames
//	resource  ctx? path method? url? headers? body? body_base64?
//	metrics ctx? | grpchealth service? | raw method bytes | compressed ctx?
//	subscribe ctx? path data? headers?         publish: the same
//	run       ctx? path run? data? headers? initial? hold? rate?  open a stream, answer at once
//	          rate: read so many bytes per second, store no packets, count gaps in column "n"
//	packets   run n? from? timeout_ms? text? decode?           wait for n more packets
//	stats     run | group                      resume run      cancel run
//	openmany  ctx? pattern n group? waiting? timeout_ms?       cancelmany group
//
// ctx: {orgId,pluginId,uid,name,id,url,jsonData,secure,updated,user,namespace,config,datasource,app}
// with Grafana's defaults. jsonData, data, body and a query's json are any JSON value; the bytes of
// a string are sent unchanged.
//
// `host descriptors` prints the protobuf declarations of the linked SDK, go-plugin and gRPC.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // registers the types of error details
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"conformance/descriptors"
)

type answer map[string]any

// envelope has the fields that all commands share.
type envelope struct {
	ID         int64             `json:"id"`
	Do         string            `json:"do"`
	DeadlineMS int64             `json:"deadline_ms"`
	Metadata   map[string]string `json:"metadata"`
}

type handler func(h *host, ctx context.Context, line []byte) (answer, error)

// host is the state between commands: the plugin, its streams and the running commands.
type host struct {
	lifecycle sync.Mutex // held by start and stop
	mu        sync.Mutex
	plugin    *process
	kill      context.CancelFunc // kills the newest process, even while it starts
	record    *record            // the log of the newest process
	runs      map[string]*run
	calls     map[int64]context.CancelFunc
	output    sync.Mutex
}

// failure is an error of this program; its code is not a gRPC status.
type failure struct{ code, message string }

func (f *failure) Error() string { return f.message }

func failf(code, format string, values ...any) error {
	return &failure{code, fmt.Sprintf(format, values...)}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "descriptors" {
		if err := descriptors.Write(os.Stdout, "pluginv2", "plugin", "grpc.health.v1"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	commands, err := takeStdin()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	h := &host{runs: map[string]*run{}, calls: map[int64]context.CancelFunc{}, record: &record{}}
	h.serve(commands)
	h.close()
}

// takeStdin replaces file descriptor 0, which the plugin inherits through go-plugin.
func takeStdin() (io.Reader, error) {
	fd, err := syscall.Dup(0)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	os.Stdin = null
	return os.NewFile(uintptr(fd), "commands"), nil
}

func (h *host) serve(commands io.Reader) {
	lines := bufio.NewReader(commands)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			h.accept(line)
		}
		if err != nil {
			return
		}
	}
}

func (h *host) accept(line []byte) {
	var head envelope
	if err := json.Unmarshal(line, &head); err != nil {
		h.write(head.ID, nil, failf("Host", "not a command: %v", err))
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	if head.DeadlineMS > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), milliseconds(head.DeadlineMS))
	}
	if len(head.Metadata) > 0 {
		ctx = metadata.NewOutgoingContext(ctx, metadata.New(head.Metadata))
	}
	h.mu.Lock()
	h.calls[head.ID] = cancel
	h.mu.Unlock()
	go func() {
		result, err := h.carryOut(ctx, head.Do, line)
		h.mu.Lock()
		delete(h.calls, head.ID)
		h.mu.Unlock()
		cancel()
		h.write(head.ID, result, err)
	}()
}

func (h *host) carryOut(ctx context.Context, do string, line []byte) (result answer, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = failf("Host", "%s: panic: %v", do, r)
		}
	}()
	command := commands[do]
	if command == nil {
		return nil, failf("Host", "unknown command %q", do)
	}
	return command(h, ctx, line)
}

func (h *host) write(id int64, result answer, err error) {
	if err == nil {
		if result == nil {
			result = answer{}
		}
		result["ok"] = true
	} else {
		result = describe(err)
	}
	result["id"] = id
	text, err := encode(result)
	if err != nil {
		text, _ = encode(answer{"id": id, "ok": false, "code": "Host", "error": err.Error()})
	}
	h.output.Lock()
	defer h.output.Unlock()
	_, _ = os.Stdout.Write(text)
}

func encode(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return text.Bytes(), err
}

// describe formats an error: gRPC errors with their code's name and details, failures with theirs.
func describe(err error) answer {
	var own *failure
	if errors.As(err, &own) {
		return answer{"ok": false, "error": own.message, "code": own.code}
	}
	if state, ok := status.FromError(err); ok {
		details := []json.RawMessage{}
		for _, detail := range state.Details() {
			if message, ok := detail.(proto.Message); ok {
				text, _ := protojson.Marshal(message)
				details = append(details, text)
			}
		}
		return answer{
			"ok": false, "error": state.Message(), "code": state.Code().String(), "details": details,
		}
	}
	return answer{"ok": false, "error": err.Error(), "code": "Host"}
}

// command makes a handler from a function with typed arguments; unknown arguments are an error.
func command[A any](do func(h *host, ctx context.Context, arguments *A) (answer, error)) handler {
	return func(h *host, ctx context.Context, line []byte) (answer, error) {
		arguments := new(A)
		if err := decode(line, arguments); err != nil {
			return nil, failf("Host", "arguments: %v", err)
		}
		return do(h, ctx, arguments)
	}
}

func decode(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

func since(start time.Time) float64 { return float64(time.Since(start).Microseconds()) / 1000 }
