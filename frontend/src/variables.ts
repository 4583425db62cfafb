/** Template variables in a query: in every text of it, however deep, but for Grafana's own fields. */

import type { DataQuery } from "@grafana/data";

export function interpolated<Q extends DataQuery>(query: Q, replace: (text: string) => string): Q {
  const { refId, key, datasource } = query;
  const replaced = JSON.parse(JSON.stringify(query), (_, value: unknown) =>
    typeof value === "string" ? replace(value) : value
  );
  return { ...replaced, refId, key, datasource };
}
