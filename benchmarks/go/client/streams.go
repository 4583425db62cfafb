package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const startMS = 1_700_000_000_000 // the time of the first row of a burst

var (
	valuesPrefix = []byte(`"values":[[`)
	columnPrefix = []byte(`],[`)
)

// column returns the first number of a packet's first column and its number of rows; 0 without one.
func column(packet []byte) (first int64, rows int, rest []byte) {
	at := bytes.Index(packet, valuesPrefix)
	if at < 0 {
		return 0, 0, nil
	}
	rest = packet[at+len(valuesPrefix):]
	end := bytes.IndexByte(rest, ']')
	if end <= 0 {
		return 0, 0, nil
	}
	for _, c := range rest[:end] {
		if c < '0' || c > '9' {
			break
		}
		first = first*10 + int64(c-'0')
	}
	return first, bytes.Count(rest[:end], []byte{','}) + 1, rest[end:]
}

// inOrder receives packets until the stream ends. Each must have the given rows, and be a millisecond
// later than the one before. A stream that joined a running channel may start with any packet. A
// server may divide a packet that is too large for a browser: its parts are seen as one.
func inOrder(stream packets, rows int, joined bool, seen func(bytes int)) error {
	due := int64(startMS)
	size, missing := 0, 0
	for {
		packet, err := stream.Recv()
		if err != nil {
			return err
		}
		first, found, _ := column(packet.Data)
		if joined {
			due, joined = first, false
		}
		size += len(packet.Data)
		if missing > 0 && found > 0 && found <= missing {
			missing -= found
		} else if missing == 0 && found > 0 && found <= rows && first == due {
			missing = rows - found
			due++
		} else {
			return fmt.Errorf("expected a packet of %d rows from %d, got %d from %d", rows, due, found, first)
		}
		if missing == 0 {
			seen(size)
			size = 0
		}
	}
}

// burst reads streams of count packets. Each has its own path, because equal paths share a channel.
func (s *server) burst(shape string, count, streams int) result {
	var rows, fields int
	fmt.Sscanf(shape, "%dx%d", &rows, &fields)
	r := result{}
	read := func(path string, count int) (total int64, failed error) {
		stream, err := s.open(background, path)
		if err != nil {
			return 0, err
		}
		packets := 0
		err = inOrder(stream, rows, false, func(bytes int) { packets++; total += int64(bytes) })
		if err == io.EOF && packets == count {
			return total, nil
		}
		return total, fmt.Errorf("expected %d packets, got %d: %w", count, packets, err)
	}
	if _, err := read(fmt.Sprintf("burst/%s/%d", shape, 5), 5); err != nil {
		return r.fail("%v", err)
	}
	var all sync.WaitGroup
	var lock sync.Mutex
	var size int64
	cpu, own, started := s.cpu(), ownCPU(), time.Now()
	for i := range streams {
		all.Go(func() {
			total, err := read(fmt.Sprintf("burst/%s/%d/s%d", shape, count, i), count)
			lock.Lock()
			defer lock.Unlock()
			size += total
			if err != nil {
				r.fail("%v", err)
			}
		})
	}
	all.Wait()
	took, n := time.Since(started).Seconds(), float64(count*streams)
	now, _ := s.memory()
	r["packets"], r["secs"], r["pps"], r["mbps"] = count*streams, took, n/took, float64(size)/took/1e6
	r["srv_us"], r["cli_us"], r["rss_mb"] = (s.cpu()-cpu)/n*1e6, (ownCPU()-own)/n*1e6, now/1024
	return r
}

// rows reads a channel of rows (time, n = 0, 1, 2 …). Packets may hold any number of rows; each row
// must arrive once and in order.
func (s *server) rows(kind string, count int) result {
	r := result{}
	stream, err := s.open(background, kind+"/10")
	for err == nil {
		_, err = stream.Recv()
	}
	if err != io.EOF {
		return r.fail("%v", err)
	}
	cpu, own, started := s.cpu(), ownCPU(), time.Now()
	stream, err = s.open(background, fmt.Sprintf("%s/%d", kind, count))
	var got int64
	var packets, size int
	for err == nil {
		var packet interface{ GetData() []byte }
		if packet, err = stream.Recv(); err != nil {
			break
		}
		packets, size = packets+1, size+len(packet.GetData())
		before := got
		first, rows, rest := column(packet.GetData())
		if got, err = countRows(rest, got); err == nil && (got-before != int64(rows) || first != startMS+before) {
			err = fmt.Errorf("expected %d times from %d, got %d from %d", got-before, startMS+before, rows, first)
		}
	}
	took := time.Since(started).Seconds()
	if err != io.EOF || got != int64(count) {
		r.fail("expected %d rows, got %d: %v", count, got, err)
	}
	r["rows"], r["packets"], r["secs"], r["rps"] = got, packets, took, float64(got)/took
	r["mbps"], r["srv_us"] = float64(size)/took/1e6, (s.cpu()-cpu)/float64(max(1, got))*1e6
	r["cli_us"] = (ownCPU() - own) / float64(max(1, got)) * 1e6
	return r
}

// countRows checks that the second column's numbers continue from due, and returns the next one.
func countRows(rest []byte, due int64) (int64, error) {
	if !bytes.HasPrefix(rest, columnPrefix) {
		return due, fmt.Errorf("expected a second column, got none")
	}
	value := int64(0)
	for _, c := range rest[len(columnPrefix):] {
		if c >= '0' && c <= '9' {
			value = value*10 + int64(c-'0')
			continue
		}
		if value != due {
			return due, fmt.Errorf("expected row %d, got %d", due, value)
		}
		due, value = due+1, 0
		if c == ']' {
			return due, nil
		}
	}
	return due, fmt.Errorf("expected the end of the packet, got none")
}

// fan opens one channel with packets of 100 rows at 10 Hz n times; no stream may miss a packet.
func (s *server) fan(n int, duration time.Duration) result {
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	r := result{}
	var lock sync.Mutex
	var all sync.WaitGroup
	var packets, started atomic.Int64
	for range n {
		all.Go(func() {
			stream, err := s.open(ctx, "fan/10/100")
			first := true
			if err == nil {
				err = inOrder(stream, 100, true, func(int) {
					packets.Add(1)
					if first {
						first = false
						started.Add(1)
					}
				})
			}
			if ctx.Err() == nil {
				lock.Lock()
				defer lock.Unlock()
				r.fail("%v", err)
			}
		})
	}
	time.Sleep(2 * time.Second)
	opened, cpu, before := started.Load(), s.cpu(), packets.Load()
	time.Sleep(duration)
	used, got := s.cpu()-cpu, packets.Load()-before
	now, _ := s.memory()
	cancel()
	all.Wait()
	if opened < int64(n) {
		r.fail("expected %d open streams, got %d", n, opened)
	}
	r.setMissed(float64(got), float64(n)*10*duration.Seconds())
	r["packets"], r["rss_mb"] = got, now/1024
	r["cpu_pct"], r["srv_us"] = used/duration.Seconds()*100, used/float64(max(1, got))*1e6
	return r
}
