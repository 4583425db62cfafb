/** Conversion between Grafana's frames and a follower's columns. */

import { type DataFrame, type QueryResultMetaNotice, toDataFrame } from "@grafana/data";

import { columnOf } from "./columns";
import type { Drawing, History } from "./follower";

type Cursor = History<DataFrame>["cursor"];

/** The cursor at the end of an exact query's frame; undefined for a frame that is not followed. */
export function cursorOf(frame: DataFrame): Cursor | undefined {
  return frame.meta?.custom?.cursor as Cursor | undefined;
}

export function historyOf(frame: DataFrame, cursor: Cursor): History<DataFrame> {
  const time = frame.fields.findIndex((field) => field.type === "time");
  return { frame, columns: frame.fields.map((field) => columnOf(field.values)), time, cursor };
}

/** Whether the fields of two frames have the same names, types and labels. */
export function sameColumns(frame: DataFrame, other: DataFrame): boolean {
  const describe = ({ fields }: DataFrame) => JSON.stringify(fields.map(({ name, type, labels }) => [name, type, labels ?? {}]));
  return describe(frame) === describe(other);
}

/** The frame that a panel draws: the history's fields with the current rows. */
export function frameOf({ frame, columns, notices }: Drawing<DataFrame>): DataFrame {
  const all: QueryResultMetaNotice[] = [...(frame.meta?.notices ?? []), ...notices];
  return toDataFrame({
    name: frame.name,
    refId: frame.refId,
    meta: { ...frame.meta, notices: all },
    fields: frame.fields.map(({ name, type, config, labels }, index) => {
      return { name, type, config, labels, values: columns[index] };
    }),
  });
}
