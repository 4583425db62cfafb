/** The rows of one panel as columns: appended at the end, trimmed at the start, copied to draw. */

import { type Column, concat, greatest, least, slice } from "./columns";

const MAX_PARTS = 500; // appended parts that are not joined yet

export class RowBuffer {
  #columns: Column[];
  #parts: Column[][] = []; // appended, and joined when they are needed: once for each frame
  #partRows = 0;

  /** `time` is the index of the column with the rows' time in Unix ms; -1 without one. */
  constructor(
    columns: Column[],
    readonly time: number
  ) {
    this.#columns = columns;
  }

  get rows(): number {
    return (this.#columns[0]?.length ?? 0) + this.#partRows;
  }

  /** How many columns each row has. */
  get width(): number {
    return this.#columns.length;
  }

  /** The time of a row in Unix ms; NaN if it has none. */
  timeOf(row: number): number {
    return Number(this.#join()[this.time]?.[row] ?? NaN);
  }

  /** The earliest time of a row in Unix ms; Infinity if none has a time. */
  get earliest(): number {
    return least(this.#join()[this.time]);
  }

  /** The latest time of a row in Unix ms; -Infinity if none has a time. */
  get latest(): number {
    return greatest(this.#join()[this.time]);
  }

  /** The rows with `from` <= time < `before`, as a new buffer. */
  between(from: number, before: number): RowBuffer {
    const columns = this.#join();
    const runs: Array<[number, number]> = []; // of rows that are in the range
    for (let row = 0; row < this.rows; row++) {
      const time = this.timeOf(row);
      if (time >= from && time < before) {
        const run = runs.at(-1);
        if (run && run[1] === row) {
          run[1]++;
        } else {
          runs.push([row, row + 1]);
        }
      }
    }
    const cut = (column: Column) =>
      concat(slice(column, 0, 0), runs.map(([first, end]) => slice(column, first, end)));
    return new RowBuffer(columns.map(cut), this.time);
  }

  /** Insert rows before all others. */
  prepend(earlier: RowBuffer): void {
    if (earlier.rows > 0) {
      const first = earlier.#join();
      this.#columns = this.#join().map((column, index) => concat(first[index], [column]));
    }
  }

  /** Append the rows of `columns` from index `first` on. The columns stay unchanged. */
  append(columns: Column[], first: number): void {
    if (columns.length > 0) {
      this.#parts.push(first > 0 ? columns.map((column) => slice(column, first)) : columns);
      this.#partRows += columns[0].length - first;
      if (this.#parts.length >= MAX_PARTS) {
        this.#join();
      }
    }
  }

  /**
   * Remove rows older than `from`, and all but the newest `limit` rows. Returns the time of the
   * newest row that only `limit` removed.
   */
  trim(from: number, limit: number): number | undefined {
    let first = 0;
    while (first < this.rows && this.timeOf(first) < from) {
      first++;
    }
    const excess = this.rows - limit;
    const cut = excess > first ? this.timeOf(excess - 1) : undefined;
    first = Math.max(first, excess);
    if (first > 0) {
      this.#columns = this.#join().map((column) => slice(column, first));
    }
    return cut;
  }

  /** A copy that a panel may keep. */
  copy(): Column[] {
    return this.#join().map((column) => slice(column));
  }

  #join(): Column[] {
    const parts = this.#parts;
    if (parts.length > 0) {
      this.#columns = this.#columns.map((column, index) => concat(column, parts.map((part) => part[index])));
      this.#parts = [];
      this.#partRows = 0;
    }
    return this.#columns;
  }
}
