/**
 * Limits how often a panel is drawn: at most every 50 ms, and not while it is hidden, except by force.
 *
 * Without it, many small packets would each draw the panel. A hidden tab gets one frame with all
 * rows when it becomes visible. After a slow draw (a table of thousands of rows) the next one waits
 * for three times as long as that took, at most 2 s, so that the page stays responsive.
 */

import { now } from "./timing";

const MIN_INTERVAL = 50; // ms from the start of a draw to the next
const IDLE_FACTOR = 3; // idle time after the end of a draw, as a multiple of how long it took
const MAX_IDLE = 2_000; // ms: a laptop that slept during a draw must not wait for hours

export class DrawThrottle {
  readonly #draw: () => void;
  readonly #hidden: () => boolean;
  #nextAt = -Infinity;
  #draws = 0; // whose work has not ended
  #pending = false;
  #timer?: ReturnType<typeof setTimeout>;

  constructor(draw: () => void, hidden: () => boolean) {
    this.#draw = draw;
    this.#hidden = hidden;
  }

  /** Draw as soon as the last draw allows; with `force` at once, even while hidden. */
  request(force = false): void {
    this.#pending = true;
    if (force) {
      this.#drawNow();
    } else if (this.#timer === undefined && this.#draws === 0 && !this.#hidden()) {
      const wait = this.#nextAt - now();
      if (wait <= 0) {
        this.#drawNow();
      } else {
        this.#timer = setTimeout(() => this.drawPending(), wait);
      }
    }
  }

  /** Draw what was requested; called when the tab becomes visible. */
  drawPending(): void {
    this.#stopTimer();
    if (this.#pending && !this.#hidden()) {
      this.#drawNow();
    }
  }

  close(): void {
    this.#pending = false;
    this.#stopTimer();
  }

  #drawNow(): void {
    this.#stopTimer();
    this.#pending = false;
    this.#draws++;
    const start = now();
    setTimeout(() => this.#endDraw(start)); // after the work that the frame has caused
    this.#draw();
  }

  #endDraw(start: number): void {
    const duration = now() - start;
    this.#nextAt = now() + Math.min(Math.max(MIN_INTERVAL - duration, IDLE_FACTOR * duration), MAX_IDLE);
    this.#draws--;
    if (this.#pending) {
      this.request();
    }
  }

  #stopTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
