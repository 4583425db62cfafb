/** The notices of one panel: missing rows, failing calls, and the stream's status. */

import type { Status } from "./packets";

/** A message in the corner of a panel: Grafana's `QueryResultMetaNotice`. */
export interface Notice {
  severity: "info" | "warning" | "error";
  text: string;
}

export interface Conditions {
  /** The stream's status as the plugin reports it; null is healthy. */
  status?: Status | null;
  /** Why calls fail, while they do. */
  failure?: string;
  /** Rows are fetched by polling. */
  polling?: boolean;
}

export class Notices {
  readonly #conditions: Conditions = { status: null, polling: false };
  /** Time of the first row after missing ones, in Unix ms. */
  gap?: number;
  /** Time of the newest row that the row limit has removed, in Unix ms. */
  cut?: number;

  /** Returns whether something has changed. */
  update(changes: Conditions): boolean {
    const before = JSON.stringify(this.#conditions);
    Object.assign(this.#conditions, changes);
    return JSON.stringify(this.#conditions) !== before;
  }

  /**
   * Forget gaps and cuts before `from`, the start of the panel's range, and return what is left.
   * At most `limit` rows are drawn.
   */
  collect(from: number, limit: number): Notice[] {
    const { status, failure, polling } = this.#conditions;
    const notices: Notice[] = [];
    if (this.gap !== undefined && this.gap < from) {
      this.gap = undefined;
    }
    if (this.cut !== undefined && this.cut < from) {
      this.cut = undefined;
    }
    if (status) {
      notices.push(status);
    }
    if (failure !== undefined) {
      notices.push({ severity: "warning", text: `Rows cannot be fetched, retrying: ${failure}` });
    } else if (polling) {
      notices.push({ severity: "info", text: "No live connection: new rows are fetched every 2 s." });
    }
    if (this.gap !== undefined) {
      const time = new Date(this.gap).toLocaleTimeString();
      notices.push({ severity: "warning", text: `Rows before ${time} are missing.` });
    }
    if (this.cut !== undefined) {
      notices.push({
        severity: "info",
        text: `Only the newest ${limit} rows are drawn. Raise "Max data points" to draw more.`,
      });
    }
    return notices;
  }
}
