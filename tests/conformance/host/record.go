package main

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// Limits of the stored output; newer output is dropped.
const (
	maxLines  = 50_000
	maxStderr = 32 << 20
)

type logLine struct {
	Level   string         `json:"level"`
	Logger  string         `json:"logger"`
	Message string         `json:"message"`
	Fields  map[string]any `json:"fields"`
}

// record stores the plugin's stderr, and the log lines that go-plugin made from it.
type record struct {
	mu      sync.Mutex
	stderr  []byte
	lines   []logLine
	dropped int
}

// Write receives the plugin's stderr from go-plugin.
func (r *record) Write(text []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.stderr)+len(text) <= maxStderr {
		r.stderr = append(r.stderr, text...)
	}
	return len(text), nil
}

// Accept receives the lines of go-plugin's logger, which is Grafana's logger there.
func (r *record) Accept(name string, level hclog.Level, message string, values ...any) {
	line := logLine{level.String(), name, message, map[string]any{}}
	for i := 0; i+1 < len(values); i += 2 {
		line.Fields[fmt.Sprint(values[i])] = jsonValue(values[i+1])
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) < maxLines {
		r.lines = append(r.lines, line)
	} else {
		r.dropped++
	}
}

// jsonValue returns values of JSON's types unchanged and all others as strings.
func jsonValue(value any) any {
	switch value := value.(type) {
	case nil, string, bool, float64, int, map[string]any, []any:
		return value
	default:
		return fmt.Sprint(value)
	}
}

func (r *record) has(message string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.lines {
		if strings.Contains(line.Message, message) {
			return true
		}
	}
	return false
}

func (r *record) answer() answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := append([]logLine{}, r.lines...)
	return answer{"stderr": string(r.stderr), "lines": lines, "dropped": r.dropped}
}
