// A plugin that shows MQTT topics in the way of grafana/mqtt-datasource: paho with QoS 0 collects
// the messages of a topic, and once in an interval they are decoded by jsoniter into a frame, which
// is sent with its schema.
package main

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/data"
	jsoniter "github.com/json-iterator/go"
)

const interval = time.Second

type message struct {
	at    time.Time
	value []byte
}

type source struct{}

func create(context.Context, backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
	return &source{}, nil
}

func (*source) CheckHealth(context.Context, *backend.CheckHealthRequest) (*backend.CheckHealthResult, error) {
	return &backend.CheckHealthResult{Status: backend.HealthStatusOk}, nil
}

func (*source) QueryData(context.Context, *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	return backend.NewQueryDataResponse(), nil
}

func (*source) SubscribeStream(context.Context, *backend.SubscribeStreamRequest) (*backend.SubscribeStreamResponse, error) {
	return &backend.SubscribeStreamResponse{Status: backend.SubscribeStreamStatusOK}, nil
}

func (*source) PublishStream(context.Context, *backend.PublishStreamRequest) (*backend.PublishStreamResponse, error) {
	return &backend.PublishStreamResponse{Status: backend.PublishStreamStatusPermissionDenied}, nil
}

func (*source) RunStream(ctx context.Context, req *backend.RunStreamRequest, sender *backend.StreamSender) error {
	var settings struct{ URI, User, Topic string }
	instance := req.PluginContext.DataSourceInstanceSettings
	if err := json.Unmarshal(instance.JSONData, &settings); err != nil {
		return err
	}
	options := paho.NewClientOptions().AddBroker(settings.URI).SetClientID("peer")
	options.SetUsername(settings.User).SetPassword(instance.DecryptedSecureJSONData["password"])
	options.SetCleanSession(false)
	client := paho.NewClient(options)
	if token := client.Connect(); token.Wait() && token.Error() != nil {
		return token.Error()
	}
	defer client.Disconnect(250)
	var lock sync.Mutex
	var messages []message
	token := client.Subscribe(settings.Topic, 0, func(_ paho.Client, m paho.Message) {
		lock.Lock()
		messages = append(messages, message{time.Now(), m.Payload()})
		lock.Unlock()
	})
	if token.Wait() && token.Error() != nil {
		return token.Error()
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			lock.Lock()
			taken := messages
			messages = nil
			lock.Unlock()
			if err := sender.SendFrame(frame(taken), data.IncludeAll); err != nil {
				return err
			}
		}
	}
}

// frame has a column for each key of the objects in the messages.
func frame(messages []message) *data.Frame {
	times := data.NewFieldFromFieldType(data.FieldTypeTime, 0)
	times.Name = "Time"
	fields, known := []*data.Field{times}, map[string]int{}
	for _, each := range messages {
		iterator := jsoniter.ParseBytes(jsoniter.ConfigDefault, each.value)
		for name := iterator.ReadObject(); name != ""; name = iterator.ReadObject() {
			value := iterator.ReadFloat64()
			index, ok := known[name]
			if !ok {
				field := data.NewFieldFromFieldType(data.FieldTypeNullableFloat64, times.Len())
				field.Name = name
				fields = append(fields, field)
				index = len(fields) - 1
				known[name] = index
			}
			fields[index].Append(&value)
		}
		times.Append(each.at)
		for _, field := range fields {
			if field.Len() < times.Len() {
				field.Extend(times.Len() - field.Len())
			}
		}
	}
	return data.NewFrame("mqtt", fields...)
}

func main() {
	if err := datasource.Manage("peer", create, datasource.ManageOpts{}); err != nil {
		os.Exit(1)
	}
}
