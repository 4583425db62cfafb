package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // for "compressed"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// commands is set by init, since handlers refer to it through the host.
var commands map[string]handler

func init() {
	commands = map[string]handler{
		"ping": command(ping), "abort": command(abort),
		"start": start, "stop": command(stop), "exited": command(exited),
		"shutdown": command(shutdown), "logs": command(logs),
		"health": command(health), "query": command(query), "chunked": command(chunked),
		"alert":    command(alert),
		"resource": command(resource), "metrics": command(metrics),
		"grpchealth": command(grpcHealth), "raw": command(raw), "compressed": command(compressed),
		"subscribe": command(subscribe), "publish": command(publish),
		"run": command(openRun), "packets": command(packets), "stats": command(stats),
		"resume": command(resume), "cancel": command(cancelRun),
		"openmany": command(openMany), "cancelmany": command(cancelMany),
	}
}

type callArguments struct {
	envelope
	Ctx     json.RawMessage   `json:"ctx"`
	Headers map[string]string `json:"headers"`
}

func (h *host) prepare(ctx json.RawMessage) (*process, *pluginv2.PluginContext, error) {
	p, err := h.current()
	if err != nil {
		return nil, nil, err
	}
	message, err := pluginContext(ctx)
	return p, message, err
}

func ping(*host, context.Context, *envelope) (answer, error) {
	return answer{"pid": os.Getpid()}, nil
}

type abortArguments struct {
	envelope
	Call int64 `json:"call"`
}

// abort cancels another command and its gRPC call.
func abort(h *host, _ context.Context, arguments *abortArguments) (answer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	cancel, found := h.calls[arguments.Call]
	if found {
		cancel()
	}
	return answer{"found": found}, nil
}

func health(h *host, ctx context.Context, arguments *callArguments) (answer, error) {
	return checkHealth(h, ctx, arguments)
}

// compressed is a health check in a gzip message, which Grafana never sends.
func compressed(h *host, ctx context.Context, arguments *callArguments) (answer, error) {
	return checkHealth(h, ctx, arguments, grpc.UseCompressor("gzip"))
}

func checkHealth(h *host, ctx context.Context, arguments *callArguments, options ...grpc.CallOption) (answer, error) {
	p, message, err := h.prepare(arguments.Ctx)
	if err != nil {
		return nil, err
	}
	reply, err := p.diagnostics.CheckHealth(ctx, &pluginv2.CheckHealthRequest{
		PluginContext: message, Headers: arguments.Headers,
	}, options...)
	if err != nil {
		return nil, err
	}
	details, err := embedded(reply.JsonDetails)
	return answer{"status": reply.Status.String(), "message": reply.Message, "details": details}, err
}

func metrics(h *host, ctx context.Context, arguments *callArguments) (answer, error) {
	p, message, err := h.prepare(arguments.Ctx)
	if err != nil {
		return nil, err
	}
	reply, err := p.diagnostics.CollectMetrics(ctx, &pluginv2.CollectMetricsRequest{PluginContext: message})
	if err != nil {
		return nil, err
	}
	return answer{"text": string(reply.GetMetrics().GetPrometheus())}, nil
}

type healthArguments struct {
	envelope
	Service string `json:"service"`
}

func grpcHealth(h *host, ctx context.Context, arguments *healthArguments) (answer, error) {
	p, err := h.current()
	if err != nil {
		return nil, err
	}
	reply, err := grpc_health_v1.NewHealthClient(p.conn).Check(
		ctx, &grpc_health_v1.HealthCheckRequest{Service: arguments.Service})
	if err != nil {
		return nil, err
	}
	return answer{"status": reply.Status.String()}, nil
}

type resourceArguments struct {
	envelope
	Ctx        json.RawMessage     `json:"ctx"`
	Path       string              `json:"path"`
	Method     string              `json:"method"`
	URL        string              `json:"url"`
	Headers    map[string][]string `json:"headers"`
	Body       blob                `json:"body"`
	BodyBase64 []byte              `json:"body_base64"`
}

// resource collects the messages of the response, each with its time of arrival.
func resource(h *host, ctx context.Context, arguments *resourceArguments) (answer, error) {
	p, message, err := h.prepare(arguments.Ctx)
	if err != nil {
		return nil, err
	}
	request := &pluginv2.CallResourceRequest{
		PluginContext: message, Path: arguments.Path, Method: arguments.Method, Url: arguments.URL,
		Headers: map[string]*pluginv2.StringList{}, Body: append(arguments.Body, arguments.BodyBase64...),
	}
	if request.Method == "" {
		request.Method = "GET"
	}
	if request.Url == "" {
		request.Url = request.Path
	}
	for name, values := range arguments.Headers {
		request.Headers[name] = &pluginv2.StringList{Values: values}
	}
	began := time.Now()
	replies, err := p.resource.CallResource(ctx, request)
	if err != nil {
		return nil, err
	}
	messages := []answer{}
	for {
		reply, err := replies.Recv()
		if errors.Is(err, io.EOF) {
			return answer{"messages": messages}, nil
		}
		if err != nil {
			return nil, err
		}
		headers := map[string][]string{}
		for name, list := range reply.Headers {
			headers[name] = list.GetValues()
		}
		one := answer{"code": reply.Code, "headers": headers, "body": string(reply.Body), "ms": since(began)}
		if !utf8.Valid(reply.Body) {
			one["body"], one["body_base64"] = nil, reply.Body
		}
		messages = append(messages, one)
	}
}

type rawArguments struct {
	envelope
	Method string `json:"method"`
	Bytes  []byte `json:"bytes"` // base64
}

// raw calls a method with any bytes and answers the response's bytes.
func raw(h *host, ctx context.Context, arguments *rawArguments) (answer, error) {
	p, err := h.current()
	if err != nil {
		return nil, err
	}
	reply, err := p.invoke(ctx, arguments.Method, arguments.Bytes)
	return answer{"bytes": base64.StdEncoding.EncodeToString(reply)}, err
}

func (p *process) invoke(ctx context.Context, method string, message []byte) ([]byte, error) {
	var reply []byte
	err := p.conn.Invoke(ctx, method, &message, &reply, grpc.ForceCodec(rawCodec{}))
	return reply, err
}

// rawCodec passes bytes through. Its name is protobuf's, for the standard content type.
type rawCodec struct{}

var _ encoding.Codec = rawCodec{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(value any) ([]byte, error) { return *value.(*[]byte), nil }

func (rawCodec) Unmarshal(text []byte, value any) error {
	*value.(*[]byte) = append([]byte{}, text...)
	return nil
}

// embedded returns bytes, which must be JSON or empty, as a part of an answer.
func embedded(text []byte) (any, error) {
	if len(text) == 0 {
		return nil, nil
	}
	if !json.Valid(text) {
		return nil, failf("Packet", "not JSON: %.200q", text)
	}
	return json.RawMessage(text), nil
}
