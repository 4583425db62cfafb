/**
 * Limits how often a panel is drawn: at most every 50 ms, and never while it is hidden.
 *
 * Without it, many small packets would each draw the panel. A hidden tab gets one frame with all
 * rows when it becomes visible. After a slow draw (a table of thousands of rows) the next one waits
 * longer, so that the page stays responsive.
 */

import { now } from "./timing";

const MIN_INTERVAL = 50; // ms between two frames
const IDLE_FACTOR = 3; // idle time after a draw, as a multiple of how long it took
const MAX_INTERVAL = 2_000; // ms: a laptop that slept during a draw must not wait for hours

export class DrawThrottle {
  readonly #draw: () => void;
  readonly #hidden: () => boolean;
  #last = -Infinity;
  #interval = MIN_INTERVAL;
  #pending = false;
  #timer?: ReturnType<typeof setTimeout>;

  constructor(draw: () => void, hidden: () => boolean) {
    this.#draw = draw;
    this.#hidden = hidden;
  }

  /** Draw as soon as the interval allows; with `force` at once, even while hidden. */
  request(force = false): void {
    this.#pending = true;
    if (force) {
      this.#drawNow();
    } else if (this.#timer === undefined && !this.#hidden()) {
      const wait = this.#last + this.#interval - now();
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
    this.#last = now();
    this.#draw();
    setTimeout(() => this.#adapt(now() - this.#last)); // after the work that the frame has caused
  }

  #adapt(duration: number): void {
    this.#interval = Math.min(Math.max(MIN_INTERVAL, IDLE_FACTOR * duration), MAX_INTERVAL);
  }

  #stopTimer(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
