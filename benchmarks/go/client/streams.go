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

const startMS = 1_700_000_000_000 // the time of a burst's first row

var (
	valuesMark = []byte(`"values":[[`)
	columnMark = []byte(`],[`)
)

// column is the number with which the first column of a packet begins, and its rows; 0 rows: none.
func column(packet []byte) (first int64, rows int, rest []byte) {
	at := bytes.Index(packet, valuesMark)
	if at < 0 {
		return 0, 0, nil
	}
	rest = packet[at+len(valuesMark):]
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

// inOrder receives packets until the stream ends: each of so many rows, each a millisecond later
// than the one before. The first may be any of a channel that runs already (joined).
func inOrder(stream packets, rows int, joined bool, seen func(bytes int)) error {
	due := int64(startMS)
	for {
		packet, err := stream.Recv()
		if err != nil {
			return err
		}
		first, found, _ := column(packet.Data)
		if joined {
			due, joined = first, false
		}
		if found != rows || first != due {
			return fmt.Errorf("a packet of %d rows from %d; due were %d from %d", found, first, rows, due)
		}
		due++
		seen(len(packet.Data))
	}
}

// burst reads streams of so many packets; each channel has its own path, for equal ones are shared.
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
		return total, fmt.Errorf("%d packets of %d arrived: %w", packets, count, err)
	}
	if _, err := read(fmt.Sprintf("burst/%s/%d", shape, 5), 5); err != nil {
		return r.fail("%v", err)
	}
	var all sync.WaitGroup
	var lock sync.Mutex
	var size int64
	cpu, own, began := s.cpu(), ownCPU(), time.Now()
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
	took, n := time.Since(began).Seconds(), float64(count*streams)
	now, _ := s.memory()
	r["packets"], r["secs"], r["pps"], r["mbps"] = count*streams, took, n/took, float64(size)/took/1e6
	r["srv_us"], r["cli_us"], r["rss_mb"] = (s.cpu()-cpu)/n*1e6, (ownCPU()-own)/n*1e6, now/1024
	return r
}

// rows reads a channel of rows (time, n = 0, 1, 2 …); packets may hold any number of them, but
// every one must arrive, in order, once.
func (s *server) rows(kind string, count int) result {
	r := result{}
	stream, err := s.open(background, kind+"/10")
	for err == nil {
		_, err = stream.Recv()
	}
	if err != io.EOF {
		return r.fail("%v", err)
	}
	cpu, own, began := s.cpu(), ownCPU(), time.Now()
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
		if got, err = counted(rest, got); err == nil && (got-before != int64(rows) || first != startMS+before) {
			err = fmt.Errorf("%d times from %d and %d numbers from %d", rows, first, got-before, before)
		}
	}
	took := time.Since(began).Seconds()
	if err != io.EOF || got != int64(count) {
		r.fail("%d rows of %d arrived: %v", got, count, err)
	}
	r["rows"], r["packets"], r["secs"], r["rps"] = got, packets, took, float64(got)/took
	r["mbps"], r["srv_us"] = float64(size)/took/1e6, (s.cpu()-cpu)/float64(max(1, got))*1e6
	r["cli_us"] = (ownCPU() - own) / float64(max(1, got)) * 1e6
	return r
}

// counted goes over the second column, whose numbers go on from due; the next one due is returned.
func counted(rest []byte, due int64) (int64, error) {
	if !bytes.HasPrefix(rest, columnMark) {
		return due, fmt.Errorf("a packet without a second column")
	}
	value := int64(0)
	for _, c := range rest[len(columnMark):] {
		if c >= '0' && c <= '9' {
			value = value*10 + int64(c-'0')
			continue
		}
		if value != due {
			return due, fmt.Errorf("row %d where %d was due", value, due)
		}
		due, value = due+1, 0
		if c == ']' {
			return due, nil
		}
	}
	return due, fmt.Errorf("a packet that does not end")
}

// fan opens one channel n times, which pushes a packet of 100 rows at 10 Hz; nobody may miss one.
func (s *server) fan(n int, lasting time.Duration) result {
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
	time.Sleep(lasting)
	used, got := s.cpu()-cpu, packets.Load()-before
	now, _ := s.memory()
	cancel()
	all.Wait()
	if opened < int64(n) {
		r.fail("%d streams of %d opened", opened, n)
	}
	r.timely(float64(got), float64(n)*10*lasting.Seconds())
	r["packets"], r["rss_mb"] = got, now/1024
	r["cpu_pct"], r["srv_us"] = used/lasting.Seconds()*100, used/float64(max(1, got))*1e6
	return r
}
