package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/genproto/pluginv2"
)

type queryArguments struct {
	envelope
	Ctx     json.RawMessage   `json:"ctx"`
	Headers map[string]string `json:"headers"`
	Queries []json.RawMessage `json:"queries"`
	Format  string            `json:"format"`  // ARROW (default) or JSON
	Raw     bool              `json:"raw"`     // true: also the frames' bytes in base64
	Browser bool              `json:"browser"` // true: the frames as a browser gets them
}

type oneQuery struct {
	RefID         string `json:"refId"`
	JSON          blob   `json:"json"`
	QueryType     string `json:"queryType"`
	MaxDataPoints int64  `json:"maxDataPoints"`
	IntervalMS    int64  `json:"intervalMS"`
	From          int64  `json:"from"` // Unix ms
	To            int64  `json:"to"`
}

func (a *queryArguments) messages() ([]*pluginv2.DataQuery, pluginv2.DataFrameFormat, error) {
	if a.Format == "" {
		a.Format = "ARROW"
	}
	format, known := pluginv2.DataFrameFormat_value[a.Format]
	if !known {
		return nil, 0, failf("Host", "format must be ARROW or JSON, got %q", a.Format)
	}
	if a.Queries == nil {
		a.Queries = []json.RawMessage{json.RawMessage("{}")}
	}
	queries := []*pluginv2.DataQuery{}
	for _, text := range a.Queries {
		one := &oneQuery{
			RefID: "A", JSON: blob("{}"), MaxDataPoints: 1000, IntervalMS: 1000,
			From: 1_700_000_000_000, To: 1_700_003_600_000,
		}
		if err := decode(text, one); err != nil {
			return nil, 0, failf("Host", "queries: %v", err)
		}
		queries = append(queries, &pluginv2.DataQuery{
			RefId: one.RefID, Json: one.JSON, QueryType: one.QueryType,
			MaxDataPoints: one.MaxDataPoints, IntervalMS: one.IntervalMS,
			TimeRange: &pluginv2.TimeRange{FromEpochMS: one.From, ToEpochMS: one.To},
		})
	}
	return queries, pluginv2.DataFrameFormat(format), nil
}

// query answers {"responses":{refId:{status,error,errorSource,format,frames}}}.
func query(h *host, ctx context.Context, arguments *queryArguments) (answer, error) {
	p, message, err := h.prepare(arguments.Ctx)
	if err != nil {
		return nil, err
	}
	queries, format, err := arguments.messages()
	if err != nil {
		return nil, err
	}
	reply, err := p.data.QueryData(ctx, &pluginv2.QueryDataRequest{
		PluginContext: message, Headers: arguments.Headers, Queries: queries, Format: format,
	})
	if err != nil {
		return nil, err
	}
	responses := map[string]answer{}
	for refID, response := range reply.Responses {
		frames := []any{}
		for _, bytes := range response.Frames {
			var frame any
			if arguments.Browser {
				frame, err = browserFrame(bytes, response.Format)
			} else {
				frame, err = readFrame(bytes, response.Format)
			}
			if err != nil {
				return nil, err
			}
			frames = append(frames, frame)
		}
		responses[refID] = answer{
			"status": response.Status, "error": response.Error, "errorSource": response.ErrorSource,
			"format": response.Format.String(), "frames": frames,
		}
		if arguments.Raw {
			responses[refID]["raw"] = response.Frames
		}
	}
	return answer{"responses": responses}, nil
}

// chunked answers the chunks in order. A JSON chunk without a schema is read with the schema of its
// frame's first chunk; each Arrow chunk has its own.
func chunked(h *host, ctx context.Context, arguments *queryArguments) (answer, error) {
	p, message, err := h.prepare(arguments.Ctx)
	if err != nil {
		return nil, err
	}
	queries, format, err := arguments.messages()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	replies, err := p.data.QueryChunkedData(ctx, &pluginv2.QueryChunkedDataRequest{
		PluginContext: message, Headers: arguments.Headers, Queries: queries, Format: format,
	})
	if err != nil {
		return nil, err
	}
	chunks := []answer{}
	schemas := map[[2]string][]byte{}
	for {
		reply, err := replies.Recv()
		if errors.Is(err, io.EOF) {
			return answer{"chunks": chunks}, nil
		}
		if err != nil {
			return nil, err
		}
		chunk := answer{
			"refId": reply.RefId, "frameId": reply.FrameId, "status": reply.Status, "error": reply.Error,
			"errorSource": reply.ErrorSource, "format": reply.Format.String(), "ms": since(began),
		}
		if chunk["frame"], err = readChunk(reply, schemas); err != nil {
			return nil, err
		}
		if arguments.Raw {
			chunk["raw"] = reply.Frame
		}
		chunks = append(chunks, chunk)
	}
}

func readChunk(chunk *pluginv2.QueryChunkedDataResponse, schemas map[[2]string][]byte) (*frameText, error) {
	if len(chunk.Frame) == 0 {
		return nil, nil
	}
	if chunk.Format != pluginv2.DataFrameFormat_JSON {
		return readFrame(chunk.Frame, chunk.Format)
	}
	key := [2]string{chunk.RefId, chunk.FrameId}
	if schema := schemaOf(chunk.Frame); schema != nil {
		schemas[key] = schema
	}
	return readPacket(chunk.Frame, schemas[key])
}

func schemaOf(text []byte) json.RawMessage {
	var parts struct {
		Schema json.RawMessage `json:"schema"`
	}
	_ = json.Unmarshal(text, &parts)
	return parts.Schema
}
