package main

import (
	"context"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/backend/grpcplugin"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// process is a started plugin and its go-plugin clients.
type process struct {
	client      *plugin.Client
	record      *record
	command     *exec.Cmd
	conn        *grpc.ClientConn
	data        grpcplugin.DataClient
	diagnostics grpcplugin.DiagnosticsClient
	resource    grpcplugin.ResourceClient
	stream      grpcplugin.StreamClient
}

// pluginSet has Grafana's protocol version and plugin names.
func pluginSet() map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{
		grpcplugin.ProtocolVersion: {
			"diagnostics": &grpcplugin.DiagnosticsGRPCPlugin{},
			"resource":    &grpcplugin.ResourceGRPCPlugin{},
			"data":        &grpcplugin.DataGRPCPlugin{},
			"stream":      &grpcplugin.StreamGRPCPlugin{},
		},
	}
}

// environment is "full", "empty" or a map of variables.
type environment struct {
	inherit   bool
	variables []string
}

func (e *environment) UnmarshalJSON(text []byte) error {
	var variables map[string]string
	if json.Unmarshal(text, &variables) == nil {
		for name, value := range variables {
			e.variables = append(e.variables, name+"="+value)
		}
		slices.Sort(e.variables)
		e.inherit = false
		return nil
	}
	switch string(text) {
	case `"full"`:
		e.inherit = true
	case `"empty"`:
		e.inherit = false
	default:
		return failf("Host", `env must be "full", "empty" or a map of strings, got %s`, text)
	}
	return nil
}

type startArguments struct {
	envelope
	Exec      string      `json:"exec"`
	Args      []string    `json:"args"`
	Env       environment `json:"env"`
	Dir       string      `json:"dir"`
	AutoMTLS  bool        `json:"automtls"`
	TimeoutMS int64       `json:"timeout_ms"`
}

// start starts a plugin as Grafana does. If the command is aborted, the process is killed.
func start(h *host, ctx context.Context, line []byte) (answer, error) {
	arguments := &startArguments{Env: environment{inherit: true}}
	if err := decode(line, arguments); err != nil {
		return nil, failf("Host", "arguments: %v", err)
	}
	h.lifecycle.Lock()
	defer h.lifecycle.Unlock()
	h.mu.Lock()
	running := h.plugin != nil && !h.plugin.client.Exited()
	h.mu.Unlock()
	if running {
		return nil, failf("Host", "start: plugin %s is still running", h.plugin.client.ID())
	}

	lifetime, kill := context.WithCancel(context.Background())
	cmd := exec.CommandContext(lifetime, arguments.Exec, arguments.Args...)
	cmd.Dir = arguments.Dir
	cmd.Env = arguments.Env.variables
	logs := &record{}
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{
		Name: "plugin", Level: hclog.Trace, Output: io.Discard, // the record gets every line
	})
	logger.RegisterSink(logs)
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: plugin.HandshakeConfig{
			ProtocolVersion:  grpcplugin.ProtocolVersion,
			MagicCookieKey:   grpcplugin.MagicCookieKey,
			MagicCookieValue: grpcplugin.MagicCookieValue,
		},
		VersionedPlugins: pluginSet(),
		Cmd:              cmd,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		AutoMTLS:         arguments.AutoMTLS,
		SkipHostEnv:      !arguments.Env.inherit,
		StartTimeout:     milliseconds(arguments.TimeoutMS),
		Stderr:           logs,
		Logger:           logger,
	})
	h.mu.Lock()
	h.record, h.kill = logs, kill
	h.mu.Unlock()
	unwatch := context.AfterFunc(ctx, kill)
	defer unwatch()

	began := time.Now()
	address, err := client.Start()
	took := since(began)
	if err != nil {
		client.Kill()
		return nil, failf("Start", "%v", err)
	}
	dispensed, err := dispense(client)
	if err != nil {
		client.Kill()
		return nil, failf("Start", "%v", err)
	}
	dispensed.command, dispensed.record = cmd, logs
	h.mu.Lock()
	h.plugin, h.runs = dispensed, map[string]*run{}
	h.mu.Unlock()
	return answer{
		"pid": cmd.Process.Pid, "protocol": client.NegotiatedVersion(), "start_ms": took,
		"network": address.Network(), "address": address.String(),
	}, nil
}

func dispense(client *plugin.Client) (*process, error) {
	protocol, err := client.Client()
	if err != nil {
		return nil, err
	}
	grpcClient, ok := protocol.(*plugin.GRPCClient)
	if !ok {
		return nil, failf("Start", "expected a gRPC client, got %T", protocol)
	}
	started := &process{client: client, conn: grpcClient.Conn}
	for name, keep := range map[string]func(any) bool{
		"data":        func(c any) bool { started.data, ok = c.(grpcplugin.DataClient); return ok },
		"diagnostics": func(c any) bool { started.diagnostics, ok = c.(grpcplugin.DiagnosticsClient); return ok },
		"resource":    func(c any) bool { started.resource, ok = c.(grpcplugin.ResourceClient); return ok },
		"stream":      func(c any) bool { started.stream, ok = c.(grpcplugin.StreamClient); return ok },
	} {
		dispensed, err := protocol.Dispense(name)
		if err != nil {
			return nil, err
		}
		if !keep(dispensed) {
			return nil, failf("Start", "unexpected type of the client %q: %T", name, dispensed)
		}
	}
	return started, nil
}

// current returns the plugin that was started last, running or not.
func (h *host) current() (*process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.plugin == nil {
		return nil, failf("Host", "no plugin was started")
	}
	return h.plugin, nil
}

// stop ends the plugin as Grafana does; graceful is false if go-plugin had to kill it.
func stop(h *host, _ context.Context, _ *envelope) (answer, error) {
	h.lifecycle.Lock()
	defer h.lifecycle.Unlock()
	p, err := h.current()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	p.client.Kill()
	took := since(began)
	return answer{"ms": took, "graceful": !p.record.has(ungraceful), "status": p.status()}, nil
}

// ungraceful is go-plugin's log message before it kills a plugin.
const ungraceful = "plugin failed to exit gracefully"

type waitArguments struct {
	envelope
	TimeoutMS int64 `json:"timeout_ms"`
}

// exited reports whether go-plugin has noticed the plugin's exit within timeout_ms.
func exited(h *host, ctx context.Context, arguments *waitArguments) (answer, error) {
	p, err := h.current()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	gone := p.awaitExit(ctx, milliseconds(arguments.TimeoutMS))
	result := answer{"exited": gone, "ms": since(began)}
	if gone {
		result["status"] = p.status()
	}
	return result, nil
}

// shutdown calls GRPCController.Shutdown and measures the time until the process has exited. The
// call's status is part of the answer, not an error: Go plugins exit without a response, and Grafana
// ignores it.
func shutdown(h *host, ctx context.Context, arguments *waitArguments) (answer, error) {
	p, err := h.current()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	_, err = p.invoke(ctx, "/plugin.GRPCController/Shutdown", nil)
	answered := since(began)
	timeout := milliseconds(arguments.TimeoutMS)
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	gone := p.awaitExit(ctx, timeout)
	return answer{
		"code": status.Code(err).String(), "answer_ms": answered, "ms": since(began), "exited": gone,
	}, nil
}

func (p *process) awaitExit(ctx context.Context, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for !p.client.Exited() {
		if ctx.Err() != nil || !time.Now().Before(deadline) {
			return false
		}
		time.Sleep(2 * time.Millisecond) // go-plugin has no way to wait for it
	}
	return true
}

// status is the exit status, or the negative number of a signal. It is nil before the exit.
func (p *process) status() any {
	state := p.command.ProcessState
	if state == nil {
		return nil
	}
	if wait, ok := state.Sys().(syscall.WaitStatus); ok && wait.Signaled() {
		return -int(wait.Signal())
	}
	return state.ExitCode()
}

func logs(h *host, _ context.Context, _ *envelope) (answer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.record.answer(), nil
}

// close stops the plugin, and kills one that does not stop or is still starting.
func (h *host) close() {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_, _ = stop(h, context.Background(), nil)
	}()
	select {
	case <-stopped:
	case <-time.After(4 * time.Second):
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.kill != nil {
			h.kill()
			time.Sleep(10 * time.Millisecond) // the signal is sent by another goroutine
		}
	}
}
