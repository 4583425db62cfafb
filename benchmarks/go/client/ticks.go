package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// watcher collects the ages of rows when they arrive, from channels whose rows have their time.
type watcher struct {
	lock    sync.Mutex
	ages    durations
	failed  error
	started atomic.Int64
}

func (w *watcher) fail(err error) {
	w.lock.Lock()
	defer w.lock.Unlock()
	if w.failed == nil {
		w.failed = err
	}
}

// watch reads a channel; only rows that arrive between from and to count.
func (w *watcher) watch(ctx context.Context, stream packets, err error, from, to time.Time) {
	var own durations
	for first := true; err == nil; first = false {
		packet, failed := stream.Recv()
		now := time.Now()
		if err = failed; err != nil {
			break
		}
		if first {
			w.started.Add(1)
			continue // it was made before the stream was open
		}
		if now.Before(from) || now.After(to) {
			continue
		}
		var frame struct {
			Data struct{ Values [][]int64 }
		}
		if err = json.Unmarshal(packet.Data, &frame); err != nil || len(frame.Data.Values) < 2 {
			err = fmt.Errorf("expected a packet with two columns, got %.200s", packet.Data)
			break
		}
		for _, made := range frame.Data.Values[1] {
			own = append(own, time.Duration(now.UnixNano()-made))
		}
	}
	if ctx.Err() == nil {
		w.fail(err)
	}
	w.lock.Lock()
	defer w.lock.Unlock()
	w.ages = append(w.ages, own...)
}

// ticks opens n channels with hz rows a second, spread over time like the panels of a dashboard.
func (s *server) ticks(n int, hz float64, duration time.Duration) result {
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	var all sync.WaitGroup
	w := &watcher{}
	from := time.Now().Add(time.Duration(n)*time.Millisecond/4 + 2*time.Second)
	to := from.Add(duration)
	for i := range n {
		if i%10 == 0 {
			time.Sleep(time.Millisecond)
		}
		all.Go(func() {
			stream, err := s.open(ctx, fmt.Sprintf("tick/%g/%d", hz, i))
			w.watch(ctx, stream, err, from, to)
		})
	}
	time.Sleep(time.Until(from))
	cpu := s.cpu()
	time.Sleep(time.Until(to))
	used := s.cpu() - cpu
	cancel()
	all.Wait()
	return w.result(float64(n)*hz*duration.Seconds(), n, used, duration)
}

func (w *watcher) result(expected float64, n int, used float64, duration time.Duration) result {
	r := result{"samples": len(w.ages), "p50_ms": w.ages.at(.5),
		"p99_ms": w.ages.at(.99), "p999_ms": w.ages.at(.999), "max_ms": w.ages.at(1),
		"cpu_pct": used / duration.Seconds() * 100, "srv_us": used / float64(max(1, len(w.ages))) * 1e6}
	if w.failed != nil {
		r.fail("%v", w.failed)
	}
	if w.started.Load() < int64(n) {
		r.fail("expected %d channels, got %d", n, w.started.Load())
	}
	r.setMissed(float64(len(w.ages)), expected)
	return r
}

// mix measures ten 10 Hz channels while another stream bursts at full speed.
func (s *server) mix(duration time.Duration) result {
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	var packets atomic.Int64
	ended := make(chan error, 1)
	go func() {
		stream, err := s.open(ctx, "burst/100x5/100000000/mix")
		if err == nil {
			err = inOrder(stream, 100, false, func(int) { packets.Add(1) })
		}
		ended <- err
	}()
	time.Sleep(300 * time.Millisecond)
	before, started := packets.Load(), time.Now()
	r := s.ticks(10, 10, duration)
	r["burst_pps"] = float64(packets.Load()-before) / time.Since(started).Seconds()
	select {
	case err := <-ended:
		r.fail("the burst: %v", err)
	default:
		if packets.Load() == before {
			r.fail("expected packets of the burst, got none")
		}
	}
	return r
}

// settle waits until no tick runs.
func (s *server) settle() error {
	for started := time.Now(); time.Since(started) < time.Minute; time.Sleep(2 * time.Millisecond) {
		if running, err := s.publish("active"); err == nil && running == 0 {
			return nil
		}
	}
	return fmt.Errorf("expected no running ticks after a minute, got some")
}
