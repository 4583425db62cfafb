// A saved query has three kinds of keys in one object: Grafana's, those of every stream, and the
// stream's own fields.
import type { StreamQuery } from "../types";

/** Grafana's own: never shown, never touched. */
const GRAFANAS_OWN = [
  "refId",
  "key",
  "datasource",
  "datasourceId",
  "hide",
  "intervalMs",
  "maxDataPoints",
  "timeRange",
  "queryCachingTTL",
];

/** Of every stream: the editor has a box for each. */
export const FORMS_OWN = ["queryType", "withStreaming", "exact", "alias"];

/** The fields of the stream that a query asks. */
export function ownFields(query: StreamQuery): Record<string, unknown> {
  const others = [...GRAFANAS_OWN, ...FORMS_OWN];
  return Object.fromEntries(Object.entries(query).filter(([name]) => !others.includes(name)));
}

/** The query with these fields instead of its own. `without`: also without these. */
export function withOwnFields(query: StreamQuery, own: Record<string, unknown>, without: string[] = []): StreamQuery {
  const gone = [...Object.keys(ownFields(query)), ...without];
  const kept = Object.fromEntries(Object.entries(query).filter(([name]) => !gone.includes(name)));
  return { ...kept, ...own } as StreamQuery;
}
