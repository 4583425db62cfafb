package main

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
)

var noon = time.Date(2024, time.February, 29, 12, 0, 0, 0, time.UTC)

// opt makes the values of a nullable field; the row after each value is null.
func opt[T any](values ...T) []*T {
	out := make([]*T, 0, 2*len(values))
	for _, value := range values {
		out = append(out, &value, nil)
	}
	return out
}

func ptr[T any](value T) *T { return &value }

// stamps is a first column: the SDK decodes a first column differently.
func stamps(rows int) *data.Field {
	times := make([]time.Time, rows)
	for i := range times {
		times[i] = noon.Add(time.Duration(i) * time.Second)
	}
	return data.NewField("time", nil, times)
}

func raw(text string) json.RawMessage { return json.RawMessage(text) }

func frames() map[string]*data.Frame {
	inf := math.Inf(1)
	special := []float64{0.1, math.NaN(), inf, -inf, -0.25, math.NaN()}
	special32 := []float32{0.1, float32(math.NaN()), float32(inf), float32(-inf), -0.25, 1e30}
	out := map[string]*data.Frame{
		"ints": data.NewFrame("ints", stamps(3),
			data.NewField("i8", nil, []int8{math.MinInt8, 0, math.MaxInt8}),
			data.NewField("i16", nil, []int16{math.MinInt16, 0, math.MaxInt16}),
			data.NewField("i32", nil, []int32{math.MinInt32, 0, math.MaxInt32}),
			data.NewField("i64", nil, []int64{math.MinInt64, 0, math.MaxInt64})),
		"ints_nullable": data.NewFrame("ints_nullable", stamps(4),
			data.NewField("i8", nil, opt[int8](math.MinInt8, math.MaxInt8)),
			data.NewField("i16", nil, opt[int16](math.MinInt16, math.MaxInt16)),
			data.NewField("i32", nil, opt[int32](math.MinInt32, math.MaxInt32)),
			data.NewField("i64", nil, opt[int64](math.MinInt64, math.MaxInt64))),
		"uints": data.NewFrame("uints", stamps(2),
			data.NewField("u8", nil, []uint8{0, math.MaxUint8}),
			data.NewField("u16", nil, []uint16{0, math.MaxUint16}),
			data.NewField("u32", nil, []uint32{0, math.MaxUint32}),
			data.NewField("u64", nil, []uint64{0, math.MaxUint64})),
		"uints_nullable": data.NewFrame("uints_nullable", stamps(4),
			data.NewField("u8", nil, opt[uint8](0, math.MaxUint8)),
			data.NewField("u16", nil, opt[uint16](0, math.MaxUint16)),
			data.NewField("u32", nil, opt[uint32](0, math.MaxUint32)),
			data.NewField("u64", nil, opt[uint64](0, math.MaxUint64))),
		"floats": data.NewFrame("floats", stamps(6),
			data.NewField("f32", nil, []float32{0, 0.1, -2.5, 1e-7, math.MaxFloat32, 16777216}),
			data.NewField("f64", nil, []float64{0, 0.1, 1.0 / 3, 1e-7, math.MaxFloat64, 5e-324})),
		"floats_special": data.NewFrame("floats_special", stamps(6),
			data.NewField("f32", nil, special32),
			data.NewField("plain", nil, []float64{1, 2, 3, 4, 5, 6}),
			data.NewField("f64", nil, special)),
		"floats_nullable": data.NewFrame("floats_nullable", stamps(12),
			data.NewField("f32", nil, opt(special32...)),
			data.NewField("f64", nil, opt(special...))),
		"text": data.NewFrame("text <&> \u2028 \U0001F321", stamps(4),
			data.NewField("s", nil, []string{"", "null", "grün \"quoted\" \\ \n\t\x00", "<b>&\u2028\U0001F321"}),
			data.NewField("b", nil, []bool{true, false, true, false})),
		"text_nullable": data.NewFrame("text_nullable", stamps(4),
			data.NewField("s", nil, opt("", "NaN")),
			data.NewField("b", nil, opt(true, false))),
		"times": data.NewFrame("times",
			data.NewField("t", nil, []time.Time{noon, time.Unix(0, 0).UTC(), noon.Add(time.Hour)}),
			data.NewField("nanos", nil, []time.Time{noon.Add(123456789), noon, noon.Add(999999)}),
			data.NewField("before", nil, []time.Time{time.Unix(-1, 1).UTC(), time.Unix(0, -1).UTC(), noon}),
			data.NewField("far", nil, []time.Time{
				time.Date(1677, 9, 22, 0, 0, 0, 1, time.UTC), noon,
				time.Date(2262, 4, 11, 0, 0, 0, 999999999, time.UTC)})),
		"times_nullable": data.NewFrame("times_nullable", stamps(4),
			data.NewField("t", nil, opt(noon, noon.Add(time.Millisecond))),
			data.NewField("nanos", nil, opt(noon.Add(1), noon.Add(time.Second)))),
		"json": data.NewFrame("json", stamps(5),
			data.NewField("j", nil, []json.RawMessage{
				raw(`{"a":[1,2.5,null],"b":{"c":"d"}}`), raw(`[]`), raw(`"text"`), raw(`null`), raw(`-3`)})),
		"json_nullable": data.NewFrame("json_nullable", stamps(4),
			data.NewField("j", nil, opt(raw(`{"a":true}`), raw(`[1,"x"]`)))),
		"enum": data.NewFrame("enum", stamps(3),
			data.NewField("state", nil, []data.EnumItemIndex{0, 2, 1}).SetConfig(enumConfig())),
		"enum_nullable": data.NewFrame("enum_nullable", stamps(4),
			data.NewField("state", nil, opt[data.EnumItemIndex](2, 0)).SetConfig(enumConfig()),
			data.NewField("bare", nil, opt[data.EnumItemIndex](math.MaxUint16, 7))),
		"labels": data.NewFrame("labels", stamps(2),
			data.NewField("celsius", data.Labels{"zone": "kitchen", "level": "1"}, []float64{20.5, 21}),
			data.NewField("celsius", data.Labels{"zone": "bath <ü>", "level": "0"}, []float64{23, 22.75})),
		"config": data.NewFrame("config", stamps(1),
			data.NewField("all", data.Labels{"a": "b"}, []float64{1}).SetConfig(fullConfig()),
			data.NewField("zero", nil, []float64{1}).SetConfig(&data.FieldConfig{
				Filterable: ptr(false), Writeable: ptr(false), Decimals: ptr(uint16(0)),
				Min: ptr(data.ConfFloat64(0)), Max: ptr(data.ConfFloat64(math.NaN())),
			}),
			data.NewField("none", nil, []float64{1}).SetConfig(&data.FieldConfig{})),
		"meta":      data.NewFrame("meta", stamps(1)).SetMeta(fullMeta()).SetRefID("B"),
		"meta_bare": data.NewFrame("", stamps(1)).SetMeta(&data.FrameMeta{}),
		"live": data.NewFrame("live", stamps(0), data.NewField("value", nil, []*float64{})).
			SetMeta(&data.FrameMeta{Channel: "ds/uid/sensors/kitchen"}).SetRefID("A"),
		"no_fields":  data.NewFrame(""),
		"only_meta":  data.NewFrame("").SetMeta(&data.FrameMeta{Channel: "ds/uid/clock"}),
		"no_rows":    data.NewFrame("no_rows", stamps(0), data.NewField("s", nil, []string{}), data.NewField("j", nil, []*json.RawMessage{})),
		"nameless":   data.NewFrame("", data.NewField("", nil, []string{"first", "column"}), data.NewField("", data.Labels{"a": "b"}, []int64{1, 2})),
		"first_f64":  data.NewFrame("", data.NewField("v", nil, opt(1.5, -2e300))),
		"first_u64":  data.NewFrame("", data.NewField("v", nil, opt[uint64](math.MaxUint64, 1))),
		"first_bool": data.NewFrame("", data.NewField("v", nil, opt(true, false))),
		"wide":       wide(120),
	}
	return out
}

func wide(columns int) *data.Frame {
	frame := data.NewFrame("wide", stamps(2))
	for i := range columns {
		labels := data.Labels{"n": fmt.Sprint(i)}
		frame.Fields = append(frame.Fields, data.NewField("value", labels, []float64{float64(i), float64(i) + 0.5}))
	}
	return frame
}

func enumConfig() *data.FieldConfig {
	return &data.FieldConfig{TypeConfig: &data.FieldTypeConfig{Enum: &data.EnumFieldConfig{
		Text:        []string{"off", "on", "broken"},
		Color:       []string{"blue", "green", "red"},
		Icon:        []string{"", "check", "times"},
		Description: []string{"is off", "is on", "is broken"},
	}}}
}

func fullConfig() *data.FieldConfig {
	return &data.FieldConfig{
		DisplayName: "shown", DisplayNameFromDS: "shown by the source", Path: "a/b", Description: "all keys",
		Filterable: ptr(true), Writeable: ptr(true), Unit: "celsius", Decimals: ptr(uint16(2)),
		Min: ptr(data.ConfFloat64(-40.5)), Max: ptr(data.ConfFloat64(125)), Interval: 1000,
		Mappings: data.ValueMappings{
			data.ValueMapper{"1": {Text: "one", Color: "red", Index: 1}, "2": {Text: "two"}},
			data.RangeValueMapper{From: ptr(data.ConfFloat64(3)), To: ptr(data.ConfFloat64(4.5)), Result: data.ValueMappingResult{Text: "few", Index: 2}},
			data.RangeValueMapper{From: ptr(data.ConfFloat64(5)), Result: data.ValueMappingResult{Text: "many"}},
			data.SpecialValueMapper{Match: data.SpecialValueNullAndNaN, Result: data.ValueMappingResult{Text: "nothing", Color: "grey"}},
		},
		Thresholds: &data.ThresholdsConfig{Mode: data.ThresholdsModePercentage, Steps: []data.Threshold{
			data.NewThreshold(math.Inf(-1), "green", ""), data.NewThreshold(80, "red", "hot")}},
		Color: map[string]any{"mode": "fixed", "fixedColor": "red", "n": 1.5},
		Links: []data.DataLink{
			{Title: "out", TargetBlank: true, URL: "https://example.org/${__value.raw}"},
			{Title: "in", Internal: &data.InternalDataLink{
				Query: map[string]any{"expr": "up"}, DatasourceUID: "uid", DatasourceName: "name",
				ExplorePanelsState: ptr(data.ExplorePanelsState(map[string]any{"trace": map[string]any{"spanId": "x"}})),
				Transformations: &[]data.LinkTransformationConfig{
					{Type: data.Regex, Field: "s", Expression: "(.*)", MapValue: "m"}, {Type: data.Logfmt}},
				Range: &data.TimeRange{From: noon, To: noon.Add(time.Hour)},
			}},
		},
		NoValue:    "-",
		TypeConfig: &data.FieldTypeConfig{Enum: &data.EnumFieldConfig{Text: []string{"a"}}},
		Custom:     map[string]any{"width": 2.0, "list": []any{"x", true, nil}},
	}
}

func fullMeta() *data.FrameMeta {
	return &data.FrameMeta{
		Type: data.FrameTypeTimeSeriesWide, TypeVersion: data.FrameTypeVersion{0, 1},
		Path: "a/b", PathSeparator: "/", Custom: map[string]any{"deep": []any{1.0, "two", map[string]any{}}},
		Stats: []data.QueryStat{{FieldConfig: data.FieldConfig{DisplayName: "rows read", Unit: "short"}, Value: 12.5}},
		Notices: []data.Notice{
			{Severity: data.NoticeSeverityInfo, Text: "an info"},
			{Severity: data.NoticeSeverityWarning, Text: "a warning", Link: "/help", Inspect: data.InspectTypeStats},
			{Severity: data.NoticeSeverityError, Text: "an error", Inspect: data.InspectTypeMeta},
		},
		Channel: "ds/uid/path", PreferredVisualization: data.VisTypeLogs,
		PreferredVisualizationPluginID: "table", ExecutedQueryString: "select <1> & 2",
		DataTopic: data.DataTopicAnnotations, UniqueRowIDFields: []int{0, 1},
	}
}
