// A saved query is one object with Grafana's keys, the keys of every query, and the stream's fields.
import type { StreamQuery } from "../types";

/** Grafana's keys: not shown, not changed. */
const GRAFANA_KEYS = [
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

/** Keys of every query, which the editor has inputs for. */
export const COMMON_KEYS = ["queryType", "withStreaming", "exact", "alias"];

/** The fields of the query's stream. */
export function streamFields(query: StreamQuery): Record<string, unknown> {
  const others = [...GRAFANA_KEYS, ...COMMON_KEYS];
  return Object.fromEntries(Object.entries(query).filter(([name]) => !others.includes(name)));
}

/** The query with the stream's fields replaced. `without`: more keys to remove. */
export function withStreamFields(
  query: StreamQuery,
  fields: Record<string, unknown>,
  without: string[] = [],
): StreamQuery {
  const removed = [...Object.keys(streamFields(query)), ...without];
  const others = Object.fromEntries(Object.entries(query).filter(([name]) => !removed.includes(name)));
  return { ...others, ...fields } as StreamQuery;
}
