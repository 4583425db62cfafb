/**
 * What exact packets and the answers of the resource `seam/rows` look like, and how they are read.
 *
 *     {"seam":{"epoch":"…","prev":4,"last":6},"data":{…}}           rows 5 and 6
 *     {"seam":{"epoch":"…","prev":4,"last":9,"ids":2},"data":{…}}   their cursors: the third column
 *     {"seam":{"epoch":"…","prev":9,"last":9}}                      the place alone
 *
 * A message is shared by all panels of its channel, so nothing here changes one.
 */

export type Column = unknown[];

export interface Seam {
  /** Names the numbering and the columns; cursors of two epochs cannot be compared. */
  epoch: string;
  prev: number;
  last: number;
  /** Index of the column that holds the cursors; without it they are prev+1 … last. */
  ids?: number;
}

/** What the plugin says of its source: reconnecting, dropping rows. */
export interface State {
  severity: "info" | "warning" | "error";
  text: string;
}

/** The places of values that JSON has no words for, as Grafana's frames give them. */
interface Entities {
  NaN?: number[];
  Inf?: number[];
  NegInf?: number[];
}

export interface Packet {
  seam: Seam;
  data?: { values: Column[]; entities?: Array<Entities | null> };
  state?: State | null;
}

/** An answer of `seam/rows`. */
export interface Page extends Packet {
  more?: boolean;
  truncated?: boolean;
}

/** Whether something that came over the socket, or as an answer, is a packet. */
export function isPacket(message: unknown): message is Packet {
  const seam = (message as Packet | null | undefined)?.seam;
  return (
    typeof seam === "object" &&
    seam !== null &&
    typeof seam.epoch === "string" &&
    Number.isSafeInteger(seam.prev) &&
    Number.isSafeInteger(seam.last)
  );
}

/** The same place without its rows: what a panel is told that joins later. */
export function placeOf(packet: Packet): Packet {
  const { epoch, last } = packet.seam;
  return { seam: { epoch, prev: last, last } };
}

/** The packet's columns, with NaN and infinities where they belong. */
export function columnsOf(packet: Packet): Column[] {
  const { values = [], entities = [] } = packet.data ?? {};
  return values.map((column, place) => withEntities(column, entities[place]));
}

/** Index of the first row whose cursor is above `cursor`. Cursors rise from row to row. */
export function firstAbove(packet: Packet, columns: Column[], cursor: number): number {
  const { prev, ids } = packet.seam;
  const rows = columns[0]?.length ?? 0;
  if (ids === undefined) {
    return Math.min(rows, Math.max(0, cursor - prev));
  }
  const cursors = columns[ids] as number[];
  let first = 0;
  while (first < rows && cursors[first] <= cursor) {
    first++;
  }
  return first;
}

function withEntities(column: Column, entities: Entities | null | undefined): Column {
  if (!entities) {
    return column;
  }
  const copy = column.slice();
  const put = (rows: number[] | undefined, value: number) => rows?.forEach((row) => (copy[row] = value));
  put(entities.NaN, NaN);
  put(entities.Inf, Infinity);
  put(entities.NegInf, -Infinity);
  return copy;
}
