/**
 * When frames go to the panel: at once, at most every 50 ms, and none while nobody can see them.
 *
 * Many small packets would have the panel drawn for each; a hidden tab needs no drawing at all, and
 * gets one frame with everything when it is shown again.
 */

import { now } from "./waits";

const APART = 50; // ms between two frames

export class Gate {
  readonly #emit: () => void;
  readonly #hidden: () => boolean;
  #last = -Infinity;
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
      const wait = this.#last + APART - now();
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
  }

  #stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
