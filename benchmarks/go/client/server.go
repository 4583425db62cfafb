package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const startTimeout = 30 * time.Second

var (
	background = context.Background()
	stderrFile string
)

// server is a plugin process and the connection to it.
type server struct {
	process   *exec.Cmd
	conn      *grpc.ClientConn
	stream    pluginv2.StreamClient
	data      pluginv2.DataClient
	diag      pluginv2.DiagnosticsClient
	started   time.Time
	handshake time.Time // when the handshake line arrived

	tenLength atomic.Int64 // of the response to tenRows
}

func start(argv []string) (*server, error) {
	if len(argv) == 0 {
		return nil, fmt.Errorf("expected a command, got none")
	}
	s := &server{process: exec.Command(argv[0], argv[1:]...)}
	s.process.Env = append(os.Environ(), "grafana_plugin_type=datasource",
		"PLUGIN_PROTOCOL_VERSIONS=2", "PLUGIN_MIN_PORT=10000", "PLUGIN_MAX_PORT=25000")
	log, err := os.OpenFile(stderrFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.process.Stderr = log
	out, err := s.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.started = time.Now()
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	timeout := time.AfterFunc(startTimeout, func() { s.process.Process.Kill() })
	defer timeout.Stop()
	reader := bufio.NewReader(out)
	line, err := reader.ReadString('\n')
	s.handshake = time.Now()
	parts := strings.Split(strings.TrimSpace(line), "|")
	if err == nil && len(parts) < 5 {
		err = fmt.Errorf("expected a handshake line, got %q", line)
	}
	if err != nil {
		s.process.Process.Kill()
		s.process.Wait()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	go io.Copy(io.Discard, reader)
	if err := s.dial(parts[2], parts[3]); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// dial uses go-plugin's options: default windows, no limit for messages.
func (s *server) dial(network, address string) (err error) {
	//lint:ignore SA1019 as go-plugin does
	s.conn, err = grpc.Dial("unused",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			conn, err := net.Dial(network, address)
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetKeepAlive(true)
			}
			return conn, err
		}),
		grpc.FailOnNonTempDialError(true),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err == nil {
		s.stream = pluginv2.NewStreamClient(s.conn)
		s.data = pluginv2.NewDataClient(s.conn)
		s.diag = pluginv2.NewDiagnosticsClient(s.conn)
	}
	return err
}

func (s *server) stop() {
	if s.conn != nil {
		s.conn.Close()
	}
	_ = s.process.Process.Signal(syscall.SIGTERM)
	timeout := time.AfterFunc(3*time.Second, func() { s.process.Process.Kill() })
	defer timeout.Stop()
	_ = s.process.Wait()
}

// memory is the process's current and maximum resident memory in KB.
func (s *server) memory() (now, most float64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	for line := range strings.Lines(string(status)) {
		if parts := strings.Fields(line); len(parts) > 1 {
			switch parts[0] {
			case "VmRSS:":
				now, _ = strconv.ParseFloat(parts[1], 64)
			case "VmHWM:":
				most, _ = strconv.ParseFloat(parts[1], 64)
			}
		}
	}
	return now, most
}

// cpu is the process's processor time in seconds, with the kernel's resolution of 1/100 s.
func (s *server) cpu() float64 {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.process.Process.Pid))
	parts := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(parts) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(parts[11], 64)
	system, _ := strconv.ParseFloat(parts[12], 64)
	return (user + system) / 100
}

// ownCPU is the client's processor time: it shows whether the client limits a figure.
func ownCPU() float64 {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Sec+usage.Stime.Sec) + float64(usage.Utime.Usec+usage.Stime.Usec)/1e6
}

// cold measures the time from exec to the first response, in several starts.
func cold(argv []string, count int) result {
	var handshake, answered durations
	var memory float64
	for range count {
		s, err := start(argv)
		if err != nil {
			return result{}.fail("start: %v", err)
		}
		err = s.health(background)
		answered = append(answered, time.Since(s.started))
		handshake = append(handshake, s.handshake.Sub(s.started))
		memory, _ = s.memory()
		s.stop()
		if err != nil {
			return result{}.fail("health: %v", err)
		}
	}
	return result{"handshake_ms": handshake.at(.5), "health_ms": answered.at(.5),
		"health_min_ms": answered.at(0), "rss_mb": memory / 1024}
}

// bare measures the time from exec to the end of a short program.
func bare(argv []string, count int) result {
	var ended durations
	for range count {
		started := time.Now()
		if err := exec.Command(argv[0], argv[1:]...).Run(); err != nil {
			return result{}.fail("%v", err)
		}
		ended = append(ended, time.Since(started))
	}
	return result{"end_ms": ended.at(.5), "end_min_ms": ended.at(0)}
}
