package main

import (
	"encoding/json"
	"math"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
)

type fieldText struct {
	Name   string            `json:"name"`
	Type   string            `json:"type"` // the SDK's name: "time.Time", "*float64"; * is nullable
	Labels map[string]string `json:"labels"`
	Config *data.FieldConfig `json:"config"`
	Values []any             `json:"values"`
}

type frameText struct {
	Name   string          `json:"name"`
	RefID  string          `json:"refId"`
	Meta   *data.FrameMeta `json:"meta"`
	Fields []fieldText     `json:"fields"`
}

// readFrame decodes one frame and describes it.
func readFrame(bytes []byte, format pluginv2.DataFrameFormat) (*frameText, error) {
	frame, err := decodeFrame(bytes, format)
	if err != nil {
		return nil, err
	}
	return describeFrame(frame), nil
}

// browserFrame is a frame as Grafana's server sends it to the browser.
func browserFrame(bytes []byte, format pluginv2.DataFrameFormat) (json.RawMessage, error) {
	frame, err := decodeFrame(bytes, format)
	if err != nil {
		return nil, err
	}
	return data.FrameToJSON(frame, data.IncludeAll)
}

// decodeFrame decodes one frame with the SDK's reader, as Grafana's server does.
func decodeFrame(bytes []byte, format pluginv2.DataFrameFormat) (*data.Frame, error) {
	var frame *data.Frame
	var err error
	switch format {
	case pluginv2.DataFrameFormat_ARROW:
		frame, err = data.UnmarshalArrowFrame(bytes)
	case pluginv2.DataFrameFormat_JSON:
		frame, err = readJSON(bytes)
	default:
		return nil, failf("Frame", "format must be ARROW or JSON, got %v", format)
	}
	if err != nil {
		return nil, failf("Frame", "%v frame: %v", format, err)
	}
	return frame, nil
}

// readJSON also rejects invalid JSON that the SDK accepts and a browser does not.
func readJSON(text []byte) (*data.Frame, error) {
	if !json.Valid(text) {
		return nil, failf("Frame", "not JSON: %.200q", text)
	}
	frame := &data.Frame{}
	return frame, frame.UnmarshalJSON(text)
}

// readPacket decodes a stream packet; a packet without a schema is read with the given one.
func readPacket(packet, schema []byte) (*frameText, error) {
	var parts struct {
		Schema json.RawMessage `json:"schema"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(packet, &parts); err != nil {
		return nil, failf("Packet", "%v", err)
	}
	if parts.Schema == nil {
		if schema == nil {
			return nil, failf("Packet", "data before any schema: %.200s", packet)
		}
		packet = append(append(append(append([]byte(`{"schema":`), schema...), `,"data":`...),
			parts.Data...), '}')
	}
	return readFrame(packet, pluginv2.DataFrameFormat_JSON)
}

func describeFrame(frame *data.Frame) *frameText {
	text := &frameText{frame.Name, frame.RefID, frame.Meta, []fieldText{}}
	for _, field := range frame.Fields {
		values := make([]any, field.Len())
		for i := range values {
			if value, ok := field.ConcreteAt(i); ok {
				values[i] = describeValue(value)
			}
		}
		text.Fields = append(text.Fields, fieldText{
			field.Name, field.Type().ItemTypeString(), field.Labels, field.Config, values,
		})
	}
	return text
}

// describeValue makes values representable in JSON: times, NaN and infinities become strings.
func describeValue(value any) any {
	switch value := value.(type) {
	case time.Time:
		return value.UTC().Format(time.RFC3339Nano)
	case float64:
		return describeFloat(value, value)
	case float32:
		return describeFloat(float64(value), value)
	default:
		return value
	}
}

func describeFloat(value float64, finite any) any {
	switch {
	case math.IsNaN(value):
		return "NaN"
	case math.IsInf(value, 1):
		return "Inf"
	case math.IsInf(value, -1):
		return "-Inf"
	default:
		return finite
	}
}
