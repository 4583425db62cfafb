/**
 * When frames go to the panel: at once, at most every 50 ms, and none while nobody can see them.
 *
 * Many small packets would have the panel drawn for each; a hidden tab needs no drawing at all, and
 * gets one frame with everything when it is shown again. What is slow to draw, a table of thousands
 * of rows, is drawn less often, so that the page can be used beside it.
 */

import { now } from "./waits";

const APART = 50; // ms between two frames
const REST = 3; // how many times as long as drawing took the browser is left alone
const LONGEST = 2_000; // ms: a laptop that slept has not drawn all night

export class Gate {
  readonly #emit: () => void;
  readonly #hidden: () => boolean;
  #last = -Infinity;
  #apart = APART;
  #wanted = false;
  #timer?: ReturnType<typeof setTimeout>;

  constructor(emit: () => void, hidden: () => boolean) {
    this.#emit = emit;
    this.#hidden = hidden;
  }

  /** There is something new. `force`: it is drawn even if nobody sees it. */
  ask(force = false): void {
    this.#wanted = true;
    if (force) {
      this.#open();
    } else if (this.#timer === undefined && !this.#hidden()) {
      const wait = this.#last + this.#apart - now();
      if (wait <= 0) {
        this.#open();
      } else {
        this.#timer = setTimeout(() => this.shown(), wait);
      }
    }
  }

  /** The tab is seen again. */
  shown(): void {
    this.#stop();
    if (this.#wanted && !this.#hidden()) {
      this.#open();
    }
  }

  close(): void {
    this.#wanted = false;
    this.#stop();
  }

  #open(): void {
    this.#stop();
    this.#wanted = false;
    this.#last = now();
    this.#emit();
    setTimeout(() => this.#rest(now() - this.#last)); // once what the frame set off has run
  }

  #rest(drawing: number): void {
    this.#apart = Math.min(Math.max(APART, REST * drawing), LONGEST);
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
