/** The name that a query gives its series. */

import type { DataFrame, DataQueryResponse, Field } from "@grafana/data";
import { type Observable, map } from "rxjs";

/** The answer with each series named: `alias`, and of several its column and labels behind it. */
export function named(answer: Observable<DataQueryResponse>, alias: string): Observable<DataQueryResponse> {
  return answer.pipe(
    map((response) => ({ ...response, data: response.data.map((frame) => withName(frame as DataFrame, alias)) }))
  );
}

function withName(frame: DataFrame, alias: string): DataFrame {
  const isOne = frame.fields.filter(isValue).length === 1;
  const fields = frame.fields.map((field) => {
    const words = isOne ? [alias] : [alias, field.name, ...Object.values(field.labels ?? {})];
    return isValue(field) ? { ...field, config: { ...field.config, displayNameFromDS: words.join(" ") } } : field;
  });
  return { ...frame, length: frame.length, fields };
}

function isValue(field: Field): boolean {
  return field.type !== "time";
}
