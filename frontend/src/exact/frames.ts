/** Conversion between Grafana's frames and a follower's columns. */

import { type DataFrame, type QueryResultMetaNotice, toDataFrame } from "@grafana/data";

import { columnOf } from "./columns";
import type { Drawing, History } from "./follower";
import type { Annotation } from "./notices";

type Cursor = History<DataFrame>["cursor"];

/** The cursor at the end of an exact query's frame; undefined for a frame that is not followed. */
export const cursorOf = (frame: DataFrame): Cursor | undefined => frame.meta?.custom?.cursor as Cursor | undefined;

export function historyOf(frame: DataFrame, cursor: Cursor): History<DataFrame> {
  const time = frame.fields.findIndex((field) => field.type === "time");
  return { frame, columns: frame.fields.map((field) => columnOf(field.values)), time, cursor };
}

/** A frame with arrays of its own. */
export const copyOf = (frame: DataFrame): DataFrame =>
  frameOf({ frame, columns: frame.fields.map((field) => columnOf(field.values)), notices: [] });

/** Whether the fields of two frames have the same names, types and labels. */
export function sameColumns(frame: DataFrame, other: DataFrame): boolean {
  const describe = ({ fields }: DataFrame) => JSON.stringify(fields.map(({ name, type, labels }) => [name, type, labels ?? {}]));
  return describe(frame) === describe(other);
}

/** The frames that a panel draws: the history's fields with the current rows, and the annotations. */
export function framesOf(drawing: Drawing<DataFrame>): DataFrame[] {
  const { frame, annotations } = drawing;
  return annotations.length > 0 ? [frameOf(drawing), annotationsOf(frame.refId, annotations)] : [frameOf(drawing)];
}

/** Charts draw such a frame as annotations: a notice is only a symbol in the panel's corner. */
function annotationsOf(refId: string | undefined, annotations: Annotation[]): DataFrame {
  const field = (name: string, type: string, valueOf: (annotation: Annotation) => unknown) => {
    return { name, type, config: {}, values: annotations.map(valueOf) };
  };
  return toDataFrame({
    refId,
    meta: { dataTopic: "annotations" },
    fields: [
      field("time", "time", ({ from }) => from),
      field("timeEnd", "time", ({ from, to }) => to ?? from),
      field("isRegion", "boolean", ({ to }) => to !== undefined),
      field("text", "string", ({ text }) => text),
      field("color", "string", () => "orange"),
    ],
  });
}

function frameOf({ frame, columns, notices }: Omit<Drawing<DataFrame>, "annotations">): DataFrame {
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
