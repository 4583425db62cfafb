// Replaces template variables in a query.
import type { DataQuery } from "@grafana/data";

/** Replaces the variables in all strings of a query, also nested ones, except in Grafana's keys. */
export function replaceVariables<Q extends DataQuery>(query: Q, replace: (text: string) => string): Q {
  const { refId, key, datasource } = query;
  const replaced = JSON.parse(JSON.stringify(query), (_, value: unknown) =>
    typeof value === "string" ? replace(value) : value,
  );
  return { ...replaced, refId, key, datasource };
}
