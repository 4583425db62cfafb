import React from "react";
import type { QueryEditorProps } from "@grafana/data";

import type { StreamDataSource } from "./datasource";
import { JsonBox } from "./JsonBox";
import type { StreamQuery, StreamSettings } from "./types";

const GRAFANAS_OWN = ["refId", "key", "datasource", "hide"];

/** What a panel asks. */
export function QueryEditor({ query, onChange, onRunQuery }: QueryEditorProps<StreamDataSource, StreamQuery, StreamSettings>) {
  const { refId, key, datasource, hide } = query;
  const saved = Object.fromEntries(Object.entries(query).filter(([name]) => !GRAFANAS_OWN.includes(name)));
  return (
    <JsonBox
      label="Query: the stream (queryType), its fields, withStreaming"
      value={Object.keys(saved).length ? saved : { queryType: "", withStreaming: true }}
      onChange={(value) => onChange({ refId, key, datasource, hide, ...value })}
      onBlur={onRunQuery}
    />
  );
}
