/**
 * The rows' columns: arrays that belong to Grafana's page, changed only by its own functions.
 *
 * In Grafana's frontend sandbox this module runs in another realm, and each value that the page reads
 * from one of our arrays passes a proxy, as does each one that we read from its arrays. lodash is the
 * page's: a method that it invokes on an array of the page runs there and returns another such array.
 */

import { invoke, max, min } from "lodash";

export type Column = unknown[];

/** The values from `first` to before `end`, as a new column. */
export const slice = (column: Column, first = 0, end?: number): Column => invoke(column, "slice", first, end) as Column;

/** The values of several columns one after the other, as a new column. */
export const concat = (column: Column, others: Column[]): Column => invoke(column, "concat", ...others) as Column;

/** Change one value. */
export function put(column: Column, row: number, value: number): void {
  invoke(column, "fill", value, row, row + 1);
}

/** The values as an array of their own; Grafana 9 keeps them in vectors, later versions in arrays. */
export const columnOf = (values: unknown): Column =>
  slice(Array.isArray(values) ? values : (invoke(values, "toArray") as Column));

/** The least number; Infinity without one. */
export const least = (column: Column | undefined): number => Number(min(column as number[]) ?? Infinity);

/** The greatest number; -Infinity without one. */
export const greatest = (column: Column | undefined): number => Number(max(column as number[]) ?? -Infinity);
