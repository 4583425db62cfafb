/** The notices of one panel: missing rows, what it waits for, failing calls, and the stream's status. */

import type { Status } from "./packets";

/** A message in the corner of a panel: Grafana's `QueryResultMetaNotice`. */
export interface Notice {
  severity: "info" | "warning" | "error";
  text: string;
}

/** Rows that are missing between two times, in Unix ms. */
export interface Gap {
  /** Time of the last row before them; undefined if none is drawn. */
  after?: number;
  /** Time of the first row after them; undefined until there is one. */
  before?: number;
  /** Whether some are missing for sure. */
  certain: boolean;
}

/** A part of the chart in which rows are missing, in Unix ms; without `to` a moment. */
export interface Annotation {
  from: number;
  to?: number;
  text: string;
}

export interface Conditions {
  /** The stream's status as the plugin reports it; null is healthy. */
  status?: Status | null;
  /** Why calls fail, while they do. */
  failure?: string;
  /** Rows are fetched by polling. */
  polling?: boolean;
  /** The history has to be loaded again, and it is too early for that. */
  blocked?: boolean;
  /** What has not happened for some seconds. */
  waiting?: string;
}

export class Notices {
  readonly #conditions: Conditions = { status: null, polling: false };
  #gaps: Gap[] = [];
  /** Time of the newest row that the row limit has removed, in Unix ms. */
  cut?: number;

  /** Returns whether something has changed. */
  update(changes: Conditions): boolean {
    const before = JSON.stringify(this.#conditions);
    Object.assign(this.#conditions, changes);
    return JSON.stringify(this.#conditions) !== before;
  }

  /** Whether rows before a gap are drawn and none after it. */
  get isOpen(): boolean {
    return this.#gaps.some(isOpen);
  }

  /**
   * Note the gap before a history whose first row has the time `begin`. Earlier gaps stay if they end
   * before it and the rows around them are drawn (`kept`).
   */
  addGap(gap: Gap | undefined, begin: number, kept: boolean): void {
    this.#gaps = this.#gaps.filter(({ after, before = Infinity }) =>
      before < begin ? kept || (!gap && after === undefined) : before === begin && !gap
    );
    if (gap) {
      this.#gaps.push(gap);
    }
  }

  /** The first row after an open gap has arrived. */
  closeGap(before: number): void {
    this.#gaps = this.#gaps.map((gap) => (isOpen(gap) ? { ...gap, before } : gap));
  }

  /**
   * Forget gaps and cuts before `from`, the start of the panel's range, and return what is left; gaps and
   * cuts also as annotations. At most `limit` rows are drawn.
   */
  collect(from: number, limit: number): { notices: Notice[]; annotations: Annotation[] } {
    const { status, failure, polling, blocked, waiting } = this.#conditions;
    const notices: Notice[] = [];
    const annotations: Annotation[] = [];
    this.#gaps = this.#gaps.filter(({ after = 0, before = after }) => before >= from);
    if (this.cut! < from) {
      this.cut = undefined;
    }
    if (status) {
      notices.push(status);
    }
    if (failure !== undefined) {
      notices.push({ severity: "warning", text: `Rows cannot be fetched, retrying: ${failure}` });
    } else if (waiting ?? blocked) {
      notices.push({ severity: "info", text: `Waiting ${waiting ?? "to load the rows again after a restart or a change"}.` });
    } else if (polling) {
      notices.push({ severity: "info", text: "No live connection: new rows are fetched every 2 s." });
    }
    const gaps = this.#gaps;
    if (gaps.length > 0) {
      const others = gaps.length > 1 ? ` Earlier gaps: ${gaps.length - 1}.` : "";
      notices.push({ severity: "warning", text: textOf(gaps.at(-1)!) + others });
      gaps.forEach((gap) => annotations.push({ from: gap.after ?? from, to: gap.before, text: textOf(gap) }));
    }
    if (this.cut !== undefined) {
      const text = `Only the newest ${limit} rows are drawn. Raise "Max data points" to draw more.`;
      notices.push({ severity: "info", text });
      annotations.push({ from, to: this.cut, text });
    }
    return { notices, annotations };
  }
}

const isOpen = (gap: Gap): boolean => gap.before === undefined;

function textOf({ after, before, certain }: Gap): string {
  const verb = certain ? "are" : "may be";
  if (before === undefined) {
    return `Rows after ${clock(after!)} ${verb} missing; none has come since.`;
  }
  const where = after === undefined ? "before" : `between ${clock(after)} and`;
  return `Rows ${where} ${clock(before)} ${verb} missing.`;
}

/** The time of day, with the date if it is not today. */
function clock(time: number): string {
  const date = new Date(time);
  return date.toDateString() === new Date().toDateString() ? date.toLocaleTimeString() : date.toLocaleString();
}
