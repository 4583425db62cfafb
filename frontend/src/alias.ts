/** The query option `alias`: the display name of its series. */

import type { DataFrame, DataQueryResponse, Field } from "@grafana/data";
import { type Observable, map } from "rxjs";

/** Names each series `alias`; if a frame has several, followed by the column's name and labels. */
export function withAlias(answer: Observable<DataQueryResponse>, alias: string): Observable<DataQueryResponse> {
  return answer.pipe(
    map((response) => ({ ...response, data: response.data.map((frame) => renamed(frame as DataFrame, alias)) }))
  );
}

function renamed(frame: DataFrame, alias: string): DataFrame {
  if (frame.meta?.dataTopic) {
    return frame; // annotations
  }
  const isOne = frame.fields.filter(isValue).length === 1;
  const fields = frame.fields.map((field) => {
    const parts = isOne ? [alias] : [alias, field.name, ...Object.values(field.labels ?? {})];
    return isValue(field) ? { ...field, config: { ...field.config, displayNameFromDS: parts.join(" ") } } : field;
  });
  return { ...frame, length: frame.length, fields };
}

const isValue = (field: Field): boolean => field.type !== "time";
