package main

import (
	"context"
	"encoding/json"
	"os"
	"strconv"
	"time"
)

func init() {
	if given := os.Getenv("BENCH_SETTINGS"); given != "" {
		settings = []byte(given)
		secrets = map[string]string{"password": os.Getenv("BENCH_PASSWORD")}
	}
}

// topics follows one channel of a source for some seconds and counts its rows. The environment has
// the path (BENCH_PATH), the seconds (BENCH_SECONDS), and the settings (BENCH_SETTINGS, as JSON) and
// the password (BENCH_PASSWORD) of the data source.
func (s *server) topics() result {
	lasts, err := strconv.Atoi(os.Getenv("BENCH_SECONDS"))
	if err != nil {
		return result{}.fail("BENCH_SECONDS: %v", err)
	}
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	stream, err := s.open(ctx, os.Getenv("BENCH_PATH"))
	var rows, packets int
	var cpu, memory float64
	var from time.Time
	for err == nil {
		packet, failed := stream.Recv()
		if err = failed; err != nil {
			break
		}
		var frame struct {
			Data struct{ Values []json.RawMessage }
		}
		if err = json.Unmarshal(packet.Data, &frame); err != nil {
			break
		}
		var times []int64
		if len(frame.Data.Values) > 0 {
			if err = json.Unmarshal(frame.Data.Values[0], &times); err != nil {
				break
			}
		}
		now := time.Now()
		if from.IsZero() { // the first packet may hold what was retained
			from, cpu = now, s.cpu()
			memory, _ = s.memory()
			continue
		}
		rows += len(times)
		packets++
		if now.Sub(from) >= time.Duration(lasts)*time.Second {
			break
		}
	}
	if err != nil {
		return result{}.fail("%v", err)
	}
	used := s.cpu() - cpu
	seconds := time.Since(from).Seconds()
	end, most := s.memory()
	return result{"rows": rows, "packets": packets, "rows_per_s": float64(rows) / seconds,
		"cpu_us_per_row": used / float64(rows) * 1e6, "cpu_share": used / seconds,
		"rss_mb": end / 1024, "rss_growth_mb": (end - memory) / 1024, "rss_max_mb": most / 1024}
}
