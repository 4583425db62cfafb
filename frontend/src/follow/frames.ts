/** Between Grafana's frames and a follower's columns. */

import { type DataFrame, type QueryResultMetaNotice, toDataFrame } from "@grafana/data";

import type { Emission, History } from "../seam/follower";
import type { Column } from "../seam/packets";

type Seam = History<DataFrame>["seam"];

/** Where the rows of an exact query's frame end; undefined for a frame that is not followed. */
export function seamOf(frame: DataFrame): Seam | undefined {
  return frame.meta?.custom?.seam as Seam | undefined;
}

export function historyOf(frame: DataFrame, seam: Seam): History<DataFrame> {
  const time = frame.fields.findIndex((field) => field.type === "time");
  return { frame, columns: frame.fields.map((field) => columnOf(field.values)), time, seam };
}

/** What a panel draws: fields as the history has them, rows as they are now. */
export function frameOf({ frame, columns, notices }: Emission<DataFrame>): DataFrame {
  const told: QueryResultMetaNotice[] = [...(frame.meta?.notices ?? []), ...notices];
  return toDataFrame({
    name: frame.name,
    refId: frame.refId,
    meta: { ...frame.meta, notices: told },
    fields: frame.fields.map(({ name, type, config, labels }, place) => {
      return { name, type, config, labels, values: columns[place] };
    }),
  });
}

/** Grafana 9 keeps values in vectors, later ones in arrays. A copy, to which rows are appended. */
function columnOf(values: unknown): Column {
  const vector = values as { toArray?: () => Column };
  return Array.from(Array.isArray(values) ? values : vector.toArray!());
}
