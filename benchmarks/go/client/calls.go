package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
	"google.golang.org/grpc"
)

// durations are measured times; at returns a quantile in ms.
type durations []time.Duration

func (d durations) at(quantile float64) float64 {
	if len(d) == 0 {
		return -1
	}
	slices.Sort(d)
	return float64(d[int(float64(len(d)-1)*quantile)].Nanoseconds()) / 1e6
}

// settings and secrets are what an admin has configured.
var (
	settings = []byte(`{}`)
	secrets  = map[string]string{
		"basicAuthPassword": "correct horse", "token": "0123456789abcdef0123456789abcdef",
		"httpHeaderValue1": "Bearer 0123456789abcdef"}
)

// toggles is a list as long as Grafana's.
var toggles = func() string {
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprintf("benchFeatureToggle%d", i))
	}
	return strings.Join(names, ",")
}()

// origin is a context as Grafana sends it. Its maps are new in each call, as Grafana's are: only then
// do their entries come in any order.
func origin() *pluginv2.PluginContext {
	return &pluginv2.PluginContext{
		OrgId: 1, PluginId: "bench-datasource", PluginVersion: "1.0.0",
		UserAgent: "Grafana/13.0.0 (linux; amd64)", Namespace: "default",
		User: &pluginv2.User{Login: "admin", Name: "Admin", Email: "admin@localhost", Role: "Admin"},
		DataSourceInstanceSettings: &pluginv2.DataSourceInstanceSettings{
			Id: 1, Name: "ds", Url: "http://localhost", JsonData: settings, Uid: "P1234567890",
			DecryptedSecureJsonData: maps.Collect(maps.All(secrets)), LastUpdatedMS: 1700000000000},
		GrafanaConfig: map[string]string{
			"GF_APP_URL":                               "https://grafana.example/",
			"GF_CONCURRENT_QUERY_COUNT":                "10",
			"GF_INSTANCE_FEATURE_TOGGLES_ENABLE":       toggles,
			"GF_USER_FACING_DEFAULT_ERROR":             "please inspect Grafana server log for details",
			"GF_SQL_ROW_LIMIT":                         "1000000",
			"GF_SQL_MAX_OPEN_CONNS_DEFAULT":            "100",
			"GF_SQL_MAX_IDLE_CONNS_DEFAULT":            "100",
			"GF_SQL_MAX_CONN_LIFETIME_SECONDS_DEFAULT": "14400",
			"GF_RESPONSE_LIMIT":                        "104857600",
		},
	}
}

var headers = map[string]string{
	"X-Dashboard-Uid": "abc", "X-Panel-Id": "3", "http_X-Grafana-Org-Id": "1"}

type packets = grpc.ServerStreamingClient[pluginv2.StreamPacket]

func (s *server) health(ctx context.Context) error {
	answer, err := s.diag.CheckHealth(ctx,
		&pluginv2.CheckHealthRequest{PluginContext: origin(), Headers: headers})
	if err == nil && answer.Status != pluginv2.CheckHealthResponse_OK {
		err = fmt.Errorf("status %v", answer.Status)
	}
	return err
}

func (s *server) open(ctx context.Context, path string) (packets, error) {
	return s.stream.RunStream(ctx, &pluginv2.RunStreamRequest{
		PluginContext: origin(), Path: path, Data: []byte(`{"q":1}`), Headers: headers})
}

func (s *server) publish(path string) (int64, error) {
	ctx, cancel := context.WithTimeout(background, 20*time.Second)
	defer cancel()
	answer, err := s.stream.PublishStream(ctx,
		&pluginv2.PublishStreamRequest{PluginContext: origin(), Path: path, Data: []byte("{}")})
	if err != nil {
		return -1, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(answer.Data)), 10, 64)
}

func (s *server) subscribe(ctx context.Context) error {
	answer, err := s.stream.SubscribeStream(ctx, &pluginv2.SubscribeStreamRequest{
		PluginContext: origin(), Path: "tick/10/0", Headers: headers})
	if err == nil && answer.Status != pluginv2.SubscribeStreamResponse_OK {
		err = fmt.Errorf("status %v", answer.Status)
	}
	return err
}

func (s *server) query(ctx context.Context, rows int) ([]byte, error) {
	answer, err := s.data.QueryData(ctx, &pluginv2.QueryDataRequest{
		PluginContext: origin(), Headers: headers, Queries: []*pluginv2.DataQuery{{
			RefId: "A", MaxDataPoints: 1000, IntervalMS: 1000,
			TimeRange: &pluginv2.TimeRange{FromEpochMS: 1700000000000, ToEpochMS: 1700003600000},
			Json:      fmt.Appendf(nil, `{"rows":%d,"refId":"A"}`, rows)}}})
	if err != nil {
		return nil, err
	}
	part := answer.Responses["A"]
	if part == nil || part.Error != "" || len(part.Frames) != 1 {
		return nil, fmt.Errorf("expected one frame, got %.300s", answer.String())
	}
	return part.Frames[0], nil
}

// checkFrame returns an error if the Arrow frame does not have the requested rows.
func checkFrame(arrow []byte, rows int) error {
	frame, err := data.UnmarshalArrowFrame(arrow)
	if err != nil {
		return err
	}
	if found := frame.Rows(); found != rows || len(frame.Fields) != 3 {
		return fmt.Errorf("expected %d rows x 3 fields, got %d x %d", rows, found, len(frame.Fields))
	}
	return nil
}

// tenRows decodes the first response only; the others are equal, so their length is compared.
func (s *server) tenRows(ctx context.Context) error {
	arrow, err := s.query(ctx, 10)
	if err != nil {
		return err
	}
	if length := s.tenLength.Load(); int64(len(arrow)) == length {
		return nil
	} else if length != 0 {
		return fmt.Errorf("expected %d bytes, got %d", length, len(arrow))
	}
	s.tenLength.Store(int64(len(arrow)))
	return checkFrame(arrow, 10)
}

// calls makes calls from several callers, each one after the other. The first calls do not count:
// they load code and make objects.
func (s *server) calls(callers int, duration time.Duration, call func(context.Context) error) result {
	var lock sync.Mutex
	var all durations
	r := result{}
	for range 20 {
		if err := call(background); err != nil {
			return r.fail("%v", err)
		}
	}
	cpu, started := s.cpu(), time.Now()
	end := started.Add(duration)
	var callersDone sync.WaitGroup
	for range callers {
		callersDone.Go(func() {
			var own durations
			var failed error
			for failed == nil && time.Now().Before(end) {
				t := time.Now()
				failed = call(background)
				own = append(own, time.Since(t))
			}
			lock.Lock()
			defer lock.Unlock()
			all = append(all, own...)
			if failed != nil {
				r.fail("%v", failed)
			}
		})
	}
	callersDone.Wait()
	count := float64(len(all))
	r["calls"], r["cps"] = len(all), count/time.Since(started).Seconds()
	r["p50_ms"], r["p99_ms"], r["srv_us"] = all.at(.5), all.at(.99), (s.cpu()-cpu)/count*1e6
	return r
}

func (s *server) bigQuery(rows, count int) result {
	if err := s.tenRows(background); err != nil {
		return result{}.fail("%v", err)
	}
	var all durations
	var size int
	cpu := s.cpu()
	for range count {
		started := time.Now()
		arrow, err := s.query(background, rows)
		size, all = len(arrow), append(all, time.Since(started))
		if err == nil {
			err = checkFrame(arrow, rows)
		}
		if err != nil {
			return result{}.fail("%v", err)
		}
	}
	_, most := s.memory()
	return result{"bytes": size, "p50_ms": all.at(.5), "min_ms": all.at(0), "max_ms": all.at(1),
		"srv_ms": (s.cpu() - cpu) / float64(count) * 1000, "peak_mb": most / 1024}
}

// cancels measures the time from the cancellation of a stream to the end of its author's code.
func (s *server) cancels(path string, count int) result {
	var all durations
	for i := range count {
		took, err := s.cancel(fmt.Sprintf(path, i), strconv.Itoa(i))
		if err != nil {
			return result{}.fail("stream %d: %v", i, err)
		}
		all = append(all, took)
	}
	return result{"n": len(all), "p50_ms": all.at(.5), "p99_ms": all.at(.99), "max_ms": all.at(1)}
}

func (s *server) cancel(path, id string) (time.Duration, error) {
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	stream, err := s.open(ctx, path)
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		return 0, err
	}
	go func() {
		for err == nil {
			_, err = stream.Recv()
		}
	}()
	time.Sleep(5 * time.Millisecond)
	cancelled := time.Now()
	cancel()
	for time.Since(cancelled) < 3*time.Second {
		ended, err := s.publish("done/" + id)
		if err != nil {
			return 0, err
		}
		if ended != 0 {
			return time.Duration(ended - cancelled.UnixNano()), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return 0, fmt.Errorf("expected the end within 3 s, got none")
}
