/** The rows of one panel, as columns: appended behind, trimmed before, copied when drawn. */

import type { Column } from "./packets";

export class Table {
  /** `time` is the index of the column with the rows' Unix ms, -1 where there is none. */
  constructor(
    readonly columns: Column[],
    readonly time: number
  ) {}

  get rows(): number {
    return this.columns[0]?.length ?? 0;
  }

  /** The time of a row in Unix ms; NaN where there is none. */
  timeOf(row: number): number {
    return Number(this.columns[this.time]?.[row] ?? NaN);
  }

  append(columns: Column[], first: number): void {
    columns.forEach((from, place) => {
      const into = this.columns[place];
      for (let row = first; row < from.length; row++) {
        into.push(from[row]);
      }
    });
  }

  /**
   * Leaves out what is older than `from`, and all but the newest `points` rows. Gives the time of
   * the newest row that went only because there are more than `points`.
   */
  trim(from: number, points: number): number | undefined {
    let first = 0;
    while (first < this.rows && this.timeOf(first) < from) {
      first++;
    }
    const most = this.rows - points;
    const cut = most > first ? this.timeOf(most - 1) : undefined;
    first = Math.max(first, most);
    if (first > 0) {
      this.columns.forEach((column) => column.splice(0, first));
    }
    return cut;
  }

  /** What a panel may keep while this table goes on. */
  copy(): Column[] {
    return this.columns.map((column) => column.slice());
  }
}
