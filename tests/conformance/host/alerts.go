package main

import (
	"context"
	"fmt"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
)

type seriesText struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	Values []float64         `json:"values"` // without null
}

// alert asks queries as an alert rule does and answers {"responses":{refId:{error,types,series}}}: the
// SDK's type of each frame, and the series or the reason why Grafana's expressions refuse the frames
// (grafana/pkg/expr/converter.go, mathexp/type_series.go, and the duplicates of pkg/services/ngalert/eval).
func alert(h *host, ctx context.Context, arguments *queryArguments) (answer, error) {
	p, message, err := h.prepare(arguments.Ctx)
	if err != nil {
		return nil, err
	}
	queries, format, err := arguments.messages()
	if err != nil {
		return nil, err
	}
	headers := map[string]string{"FromAlert": "true"}
	reply, err := p.data.QueryData(ctx, &pluginv2.QueryDataRequest{
		PluginContext: message, Headers: headers, Queries: queries, Format: format,
	})
	if err != nil {
		return nil, err
	}
	responses := map[string]answer{}
	for refID, response := range reply.Responses {
		frames := []*data.Frame{}
		types := []string{}
		for _, bytes := range response.Frames {
			frame, err := decodeFrame(bytes, response.Format)
			if err != nil {
				return nil, err
			}
			frames = append(frames, frame)
			types = append(types, frame.TimeSeriesSchema().Type.String())
		}
		one := answer{"error": response.Error, "types": types, "series": []seriesText{}}
		if response.Error == "" {
			series, err := alertSeries(frames)
			one["series"] = series
			if err != nil {
				one["error"] = err.Error()
			}
		}
		responses[refID] = one
	}
	return answer{"responses": responses}, nil
}

// alertSeries reads each column of numbers as a series; a frame without fields has none.
func alertSeries(frames []*data.Frame) ([]seriesText, error) {
	found := []seriesText{}
	if len(frames) == 1 && len(frames[0].Fields) == 0 {
		return found, nil
	}
	labels := map[string]bool{}
	for _, frame := range frames {
		schema := frame.TimeSeriesSchema()
		if schema.Type != data.TimeSeriesTypeWide {
			return nil, fmt.Errorf("expected a wide frame, got type %s", schema.Type)
		}
		for i := 0; i < frame.Rows(); i++ {
			if frame.Fields[schema.TimeIndex].NilAt(i) {
				return nil, fmt.Errorf("row %d has no time", i)
			}
		}
		for _, index := range schema.ValueIndices {
			field := frame.Fields[index]
			values, err := floats(field)
			if err != nil {
				return nil, err
			}
			if key := field.Labels.String(); labels[key] {
				return nil, fmt.Errorf("two series with the labels {%s}", key)
			} else {
				labels[key] = true
			}
			found = append(found, seriesText{field.Name, field.Labels, values})
		}
	}
	return found, nil
}

func floats(field *data.Field) ([]float64, error) {
	values := []float64{}
	if field.Len() == 0 {
		return nil, fmt.Errorf("field %q has no values", field.Name)
	}
	for i := 0; i < field.Len(); i++ {
		value, err := field.NullableFloatAt(i)
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", field.Name, err)
		}
		if value != nil {
			values = append(values, *value)
		}
	}
	return values, nil
}
