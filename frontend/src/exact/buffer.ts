/** The rows of one panel as columns: appended at the end, trimmed at the start, copied to draw. */

import type { Column } from "./packets";

export class RowBuffer {
  /** `time` is the index of the column with the rows' time in Unix ms; -1 without one. */
  constructor(
    readonly columns: Column[],
    readonly time: number
  ) {}

  get rows(): number {
    return this.columns[0]?.length ?? 0;
  }

  /** The time of a row in Unix ms; NaN if it has none. */
  timeOf(row: number): number {
    return Number(this.columns[this.time]?.[row] ?? NaN);
  }

  /** The earliest time of a row in Unix ms; Infinity if none has a time. */
  get earliest(): number {
    return this.#times().reduce((least, time) => (time < least ? time : least), Infinity);
  }

  /** The latest time of a row in Unix ms; -Infinity if none has a time. */
  get latest(): number {
    return this.#times().reduce((most, time) => (time > most ? time : most), -Infinity);
  }

  /** The rows with `from` <= time < `before`, as a new buffer. */
  between(from: number, before: number): RowBuffer {
    const keep = this.#times().map((time) => time >= from && time < before);
    return new RowBuffer(this.columns.map((column) => column.filter((_, row) => keep[row])), this.time);
  }

  /** Insert rows before all others. */
  prepend(earlier: RowBuffer): void {
    if (earlier.rows > 0) {
      this.columns.forEach((column, index) => (this.columns[index] = earlier.columns[index].concat(column)));
    }
  }

  /** Append the rows of `columns` from index `first` on. */
  append(columns: Column[], first: number): void {
    columns.forEach((source, index) => {
      const target = this.columns[index];
      for (let row = first; row < source.length; row++) {
        target.push(source[row]);
      }
    });
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
      this.columns.forEach((column) => column.splice(0, first));
    }
    return cut;
  }

  #times(): number[] {
    return Array.from({ length: this.rows }, (_, row) => this.timeOf(row));
  }

  /** A copy that a panel may keep while this buffer changes. */
  copy(): Column[] {
    return this.columns.map((column) => column.slice());
  }
}
