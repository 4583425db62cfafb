/** What a panel is told beside its rows: what is missing, what is late, and what the plugin says. */

import type { State } from "./packets";

export interface News {
  /** What the plugin says of its source. */
  plugin?: State | null;
  /** Why calls fail, while they do. */
  failure?: string;
  /** Rows come by polling. */
  polling?: boolean;
}

export class Notices {
  readonly #news: News = { plugin: null, polling: false };
  /** Time of the first row after lost ones, in Unix ms. */
  lost?: number;
  /** Time of the newest row that is not drawn because there are too many. */
  cut?: number;

  /** Whether that is something new. */
  say(news: News): boolean {
    const before = JSON.stringify(this.#news);
    Object.assign(this.#news, news);
    return JSON.stringify(this.#news) !== before;
  }

  /** Those that hold for a range beginning at `from`, of which `points` rows are drawn at most. */
  list(from: number, points: number): State[] {
    const { plugin, failure, polling } = this.#news;
    const found: State[] = [];
    if (this.lost !== undefined && this.lost < from) {
      this.lost = undefined;
    }
    if (this.cut !== undefined && this.cut < from) {
      this.cut = undefined;
    }
    if (plugin) {
      found.push(plugin);
    }
    if (failure !== undefined) {
      found.push({ severity: "warning", text: `Rows cannot be fetched, trying again: ${failure}` });
    } else if (polling) {
      found.push({ severity: "info", text: "No live connection: new rows are fetched every 2 s." });
    }
    if (this.lost !== undefined) {
      const time = new Date(this.lost).toLocaleTimeString();
      found.push({ severity: "warning", text: `Rows before ${time} are missing: nobody has them any more.` });
    }
    if (this.cut !== undefined) {
      found.push({
        severity: "info",
        text: `Only the newest ${points} rows are drawn: the panel's "Max data points".`,
      });
    }
    return found;
  }
}
