/**
 * The packets of exact channels and the answers of the resource `replay/rows`.
 *
 *     {"cursor":{"epoch":"…","prev":4,"last":6},"data":{…}}              rows 5 and 6
 *     {"cursor":{"epoch":"…","prev":4,"last":9,"column":2},"data":{…}}   cursors in the third column
 *     {"cursor":{"epoch":"…","prev":9,"last":9}}                         no rows: a heartbeat
 *     {"cursor":{"epoch":"…","prev":"…04-…00","last":"…04-…07","column":[1,2]},"data":{…}}   pairs
 *
 * All panels of a channel share one message object, so no function here changes it.
 */

import { type Column, put, slice } from "./columns";

/** A number; or two of 16 digits with a hyphen between them, a text that sorts as the pair does.
 * "-1" is before all of them. Both are compared by `<`. The values of one column may be such a pair
 * without the leading zeros. */
export type Cursor = number | string;

/** The rows of a packet are those with prev < cursor <= last. */
export interface CursorRange {
  /** Names the numbering and the columns; cursors of two epochs cannot be compared. */
  epoch: string;
  prev: Cursor;
  last: Cursor;
  /** Index of the column that holds the cursors, or of both; without it they are prev+1 … last. */
  column?: number | [number, number];
}

/** The stream's status when it is not healthy: reconnecting, dropping rows. */
export interface Status {
  severity: "info" | "warning" | "error";
  text: string;
}

/** Row indexes of the values that JSON cannot express, as in Grafana's frames. */
interface Entities {
  NaN?: number[];
  Inf?: number[];
  NegInf?: number[];
}

export interface Packet {
  cursor: CursorRange;
  data?: { values: Column[]; entities?: Array<Entities | null> };
  status?: Status | null;
}

/** An answer of `replay/rows`. */
export interface Page extends Packet {
  /** The log has rows after `last`. */
  more?: boolean;
  /** The log has lost rows after the requested cursor. */
  truncated?: boolean;
}

export function isPacket(message: unknown): message is Packet {
  const cursor = (message as Packet | null | undefined)?.cursor;
  return (
    typeof cursor === "object" &&
    cursor !== null &&
    typeof cursor.epoch === "string" &&
    isCursor(cursor.prev) &&
    typeof cursor.last === typeof cursor.prev &&
    isCursor(cursor.last)
  );
}

function isCursor(value: unknown): value is Cursor {
  return typeof value === "string" ? PAIR.test(value) : Number.isSafeInteger(value);
}

const PAIR = /^(\d{16}-\d{16}|-1)$/;

/** Two numbers as their cursor. */
export const pairOf = (...numbers: Array<number | string>): string =>
  numbers.map((number) => String(number).padStart(16, "0")).join("-");

/** The packet's last cursor as a packet without rows. */
export function heartbeatOf(packet: Packet): Packet {
  const { epoch, last } = packet.cursor;
  return { cursor: { epoch, prev: last, last } };
}

/** The packet's columns, with NaN and infinities restored. */
export function columnsOf(packet: Packet): Column[] {
  const { values = [], entities = [] } = packet.data ?? {};
  return values.map((column, index) => withEntities(column, entities[index]));
}

/** Index of the first row whose cursor is greater than `cursor`. Cursors increase from row to row. */
export function firstAfter(packet: Packet, columns: Column[], cursor: Cursor): number {
  const { prev, column } = packet.cursor;
  const rows = columns[0]?.length ?? 0;
  if (column === undefined) {
    return Math.min(rows, Math.max(0, (cursor as number) - (prev as number)));
  }
  const [one, two] = [column].flat().map((index) => columns[index] as Cursor[]);
  const cursorOf = (row: number): Cursor => {
    const value = one[row];
    return two ? pairOf(value, two[row]) : typeof value === "string" ? pairOf(...value.split("-")) : value;
  };
  let first = 0;
  while (first < rows && cursorOf(first) <= cursor) {
    first++;
  }
  return first;
}

function withEntities(column: Column, entities: Entities | null | undefined): Column {
  if (!entities) {
    return column;
  }
  const copy = slice(column);
  entities.NaN?.forEach((row) => put(copy, row, NaN));
  entities.Inf?.forEach((row) => put(copy, row, Infinity));
  entities.NegInf?.forEach((row) => put(copy, row, -Infinity));
  return copy;
}
