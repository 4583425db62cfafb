// The load client: starts a plugin with the go-plugin handshake, dials it with go-plugin's options,
// runs one workload and prints its result as one JSON object.
//
//	client -w b1x2 [-scale X] [-stderr FILE] -- COMMAND…
//
// Every packet and row is counted. If one is missing, out of order or far too late, the object has
// an "error", and its figures are invalid.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// result is the result of a workload; names end with their units.
type result map[string]any

func (r result) fail(format string, parts ...any) result {
	if r["error"] == nil {
		r["error"] = fmt.Sprintf(format, parts...)
	}
	return r
}

// setMissed records the share of due packets that were not made. Nothing is lost by that: a busy
// server makes fewer packets (Go's tickers drop ticks). Below half of them it is an error.
func (r result) setMissed(seen, expected float64) {
	r["missed"] = max(0, 1-seen/expected)
	if seen < expected/2 {
		r.fail("expected %.0f packets or rows, got %.0f", expected, seen)
	}
}

type workload func(s *server, scale float64) result

// times is an amount multiplied by the scale, at least 2.
func times(amount int, scale float64) int { return max(2, int(float64(amount)*scale)) }

func seconds(amount, scale float64) time.Duration {
	return time.Duration(max(1, amount*min(1, scale)) * float64(time.Second))
}

var workloads = map[string]workload{
	"b1x2":     func(s *server, x float64) result { return s.burst("1x2", times(300_000, x), 1) },
	"b100x5":   func(s *server, x float64) result { return s.burst("100x5", times(12_000, x), 1) },
	"b10000x5": func(s *server, x float64) result { return s.burst("10000x5", times(160, x), 1) },
	"b1x2s8":   func(s *server, x float64) result { return s.burst("1x2", times(40_000, x), 8) },
	"b100x5s8": func(s *server, x float64) result { return s.burst("100x5", times(2000, x), 8) },
	"rows":     func(s *server, x float64) result { return s.rows("rows", times(1_000_000, x)) },
	"mixed":    func(s *server, x float64) result { return s.rows("mixed", times(300_000, x)) },
	"messages": func(s *server, x float64) result { return s.rows("messages", times(300_000, x)) },
	"columns":  func(s *server, x float64) result { return s.rows("columns", times(10_000_000, x)) },
	"fan1000":  func(s *server, x float64) result { return s.fan(1000, seconds(5, x)) },
	"mix":      func(s *server, x float64) result { return s.mix(seconds(12, x)) },
	"t100":     func(s *server, x float64) result { return s.ticks(100, 10, seconds(6, x)) },
	"t1000":    func(s *server, x float64) result { return s.ticks(1000, 10, seconds(6, x)) },
	"sub":      func(s *server, x float64) result { return s.calls(1, seconds(2, x), s.subscribe) },
	"sub16":    func(s *server, x float64) result { return s.calls(16, seconds(2, x), s.subscribe) },
	"q10":      func(s *server, x float64) result { return s.calls(1, seconds(2, x), s.tenRows) },
	"q10c8":    func(s *server, x float64) result { return s.calls(8, seconds(2, x), s.tenRows) },
	"q1m":      func(s *server, x float64) result { return s.bigQuery(1_000_000, times(5, x)) },
	"m1000":    func(s *server, x float64) result { return s.mass(1000) },
	"m10000":   func(s *server, x float64) result { return s.mass(10_000) },
	"herd":     func(s *server, x float64) result { return s.herd(times(5000, min(1, x))) },
	"cancel":   func(s *server, x float64) result { return s.cancels("wait/%d", times(100, x)) },
	"cancelburst": func(s *server, x float64) result {
		return s.cancels("burst/1x2/100000000/%d", times(20, x))
	},
	"topics": func(s *server, x float64) result { return s.topics() },
	"g1":     func(s *server, x float64) result { return s.growth(1, seconds(20, x)) },
	"g100":   func(s *server, x float64) result { return s.growth(100, seconds(20, x)) },
	"g1000":  func(s *server, x float64) result { return s.growth(1000, seconds(20, x)) },
	"g10000": func(s *server, x float64) result { return s.growth(10_000, seconds(20, x)) },
}

// Two workloads start processes themselves: a plugin, and a program that only ends.
var starts = map[string]func(argv []string, count int) result{"cold": cold, "bare": bare}

func run(name string, scale float64, argv []string) result {
	if start := starts[name]; start != nil {
		return start(argv, times(5, scale))
	}
	measure := workloads[name]
	if measure == nil {
		known := slices.Sorted(maps.Keys(workloads))
		return result{}.fail("workload must be cold, bare or one of %v, got %q", known, name)
	}
	s, err := start(argv)
	if err != nil {
		return result{}.fail("start: %v", err)
	}
	defer s.stop()
	if err := s.health(background); err != nil {
		return result{}.fail("health: %v", err)
	}
	return measure(s, scale)
}

func main() {
	name := flag.String("w", "b1x2", "workload")
	scale := flag.Float64("scale", 1, "size of the workload")
	flag.StringVar(&stderrFile, "stderr", os.DevNull, "file that the plugin's stderr is appended to")
	flag.Parse()
	out, err := json.Marshal(run(*name, *scale, flag.Args()))
	if err != nil {
		out = []byte(fmt.Sprintf(`{"error":%q}`, err))
	}
	fmt.Println(string(out))
}
