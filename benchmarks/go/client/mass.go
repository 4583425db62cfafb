package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxOpening  = 200 // streams that wait for their first packet
	openTimeout = time.Minute
)

// crowd is a number of open streams that have received their first packets.
type crowd struct {
	cancel context.CancelFunc
	all    sync.WaitGroup
	opened atomic.Int64
	rows   atomic.Int64 // packets after the first of each stream
	lock   sync.Mutex
	failed error
}

func (c *crowd) fail(err error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.failed == nil {
		c.failed = err
	}
}

// gather opens n channels and returns when each has received a packet, or after openTimeout. At most
// most of them wait for their first packets.
func (s *server) gather(n, most int, hz float64, name string) (*crowd, error) {
	ctx, cancel := context.WithTimeout(background, 3*openTimeout)
	c := &crowd{cancel: cancel}
	end := time.After(openTimeout)
	opening, first := make(chan struct{}, most), make(chan struct{}, n)
	late := fmt.Errorf("expected all streams within %v, got a timeout", openTimeout)
	for i := range n {
		select {
		case opening <- struct{}{}:
		case <-end:
			return c, late
		}
		c.all.Go(func() {
			opened := false
			release := sync.OnceFunc(func() { <-opening })
			defer release()
			stream, err := s.open(ctx, fmt.Sprintf("tick/%g/%s%d", hz, name, i))
			for err == nil {
				if _, err = stream.Recv(); err != nil {
					break
				}
				if opened {
					c.rows.Add(1)
					continue
				}
				opened = true
				c.opened.Add(1)
				release()
				first <- struct{}{}
			}
			if ctx.Err() == nil {
				c.fail(err)
			}
		})
	}
	for range n {
		select {
		case <-first:
		case <-end:
			return c, late
		}
	}
	return c, nil
}

func (c *crowd) leave(s *server) error {
	c.cancel()
	c.all.Wait()
	return s.settle()
}

// probe repeats a call until end is closed, at least minimum times.
func probe(minimum int, end <-chan struct{}, call func(context.Context) error) (durations, error) {
	var all durations
	for ended := false; !ended || len(all) < minimum; time.Sleep(10 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(background, 5*time.Second)
		started := time.Now()
		err := call(ctx)
		all = append(all, time.Since(started))
		cancel()
		if err != nil {
			return all, err
		}
		select {
		case <-end:
			ended = true
		default:
		}
	}
	return all, nil
}

// mass opens n channels with one packet in ten seconds, with health checks meanwhile and afterwards.
func (s *server) mass(n int) result {
	r := result{"n": n}
	if alone, err := s.gather(1, 1, 0.1, "warm"); err != nil || alone.leave(s) != nil {
		return r.fail("%v", err)
	}
	before, _ := s.memory()
	var meanwhile durations
	var openingErr error
	var probing sync.WaitGroup
	opened := make(chan struct{})
	probing.Go(func() { meanwhile, openingErr = probe(1, opened, s.health) })
	cpu, started := s.cpu(), time.Now()
	c, err := s.gather(n, maxOpening, 0.1, "")
	r["open_s"], r["open_cpu_s"] = time.Since(started).Seconds(), s.cpu()-cpu
	close(opened)
	probing.Wait()
	after, _ := s.memory()
	closed := make(chan struct{})
	close(closed)
	open, openErr := probe(100, closed, s.health)
	r["channel_kb"], r["rss_mb"] = (after-before)/float64(max(1, c.opened.Load())), after/1024
	r["opening_p50_ms"], r["opening_p99_ms"] = meanwhile.at(.5), meanwhile.at(.99)
	r["open_p50_ms"], r["open_p99_ms"] = open.at(.5), open.at(.99)
	cpu = s.cpu()
	time.Sleep(2 * time.Second)
	r["idle_cpu_pct"] = (s.cpu() - cpu) / 2 * 100
	cpu, started = s.cpu(), time.Now()
	left := c.leave(s)
	r["close_s"], r["close_cpu_s"] = time.Since(started).Seconds(), s.cpu()-cpu
	for _, failed := range []error{err, c.failed, openingErr, openErr, left} {
		if failed != nil {
			r.fail("%v", failed)
		}
	}
	if c.opened.Load() != int64(n) {
		r.fail("expected %d open channels, got %d", n, c.opened.Load())
	}
	return r
}

// herd opens n channels at once, as after a restart of Grafana, with health checks meanwhile.
func (s *server) herd(n int) result {
	r := result{"n": n}
	if alone, err := s.gather(1, 1, 0.1, "warm"); err != nil || alone.leave(s) != nil {
		return r.fail("%v", err)
	}
	var meanwhile durations
	var probeErr error
	var probing sync.WaitGroup
	opened := make(chan struct{})
	probing.Go(func() { meanwhile, probeErr = probe(1, opened, s.health) })
	cpu, started := s.cpu(), time.Now()
	c, err := s.gather(n, n, 0.1, "")
	r["all_s"], r["all_cpu_s"] = time.Since(started).Seconds(), s.cpu()-cpu
	close(opened)
	probing.Wait()
	r["checks"], r["check_p50_ms"], r["check_max_ms"] = len(meanwhile), meanwhile.at(.5), meanwhile.at(1)
	left := c.leave(s)
	for _, failed := range []error{err, c.failed, probeErr, left} {
		if failed != nil {
			r.fail("%v", failed)
		}
	}
	if c.opened.Load() != int64(n) {
		r.fail("expected %d open channels, got %d", n, c.opened.Load())
	}
	return r
}

// growth measures the cost of a packet and of opening a channel at n channels: 500 packets a second in
// total for any n, for at least one period, and a thousand opens.
func (s *server) growth(n int, duration time.Duration) result {
	const total = 500 // a rate that one Go ticker reaches
	r := result{"n": n}
	hz := total / float64(n)
	duration = max(duration, time.Duration(float64(time.Second)/hz))
	if alone, err := s.gather(1, 1, 0.1, "warm"); err != nil || alone.leave(s) != nil {
		return r.fail("%v", err)
	}
	var opening float64
	rounds := max(1, 1000/n)
	for i := range rounds {
		cpu := s.cpu()
		c, err := s.gather(n, maxOpening, 0.01, fmt.Sprintf("r%d-", i))
		opening += s.cpu() - cpu
		if left := c.leave(s); err != nil || left != nil {
			return r.fail("%v, %v", err, left)
		}
	}
	r["open_us"] = opening / float64(rounds*n) * 1e6
	c, err := s.gather(n, maxOpening, hz, "")
	if err != nil {
		return r.fail("%v", err)
	}
	time.Sleep(2 * time.Second)
	cpu, before := s.cpu(), c.rows.Load()
	time.Sleep(duration)
	used, packets := s.cpu()-cpu, c.rows.Load()-before
	if err := c.leave(s); err != nil {
		return r.fail("%v", err)
	}
	if c.failed != nil {
		return r.fail("%v", c.failed)
	}
	r.setMissed(float64(packets), total*duration.Seconds())
	r["packets"], r["packet_us"] = packets, used/float64(max(1, packets))*1e6
	return r
}
