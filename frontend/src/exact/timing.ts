/** Time limits and delays: back-off between calls, intervals between reloads, sleep, time-out. */

/** Monotonic milliseconds. */
export const now = (): number => performance.now();

/** Delays that double from `min` to `max` milliseconds. */
export class Backoff {
  readonly #min: number;
  readonly #max: number;
  #delay: number;

  constructor(min: number, max: number) {
    this.#min = min;
    this.#max = max;
    this.#delay = min;
  }

  next(): number {
    const delay = this.#delay;
    this.#delay = Math.min(2 * delay, this.#max);
    return delay;
  }

  reset(): void {
    this.#delay = this.#min;
  }
}

const QUIET = 30_000; // ms without a request after which a reload may follow at once again

/** Allows a reload of the history at once, then 2, 4 … 30 s apart. */
export class ReloadLimiter {
  readonly #backoff = new Backoff(2_000, 30_000);
  #allowedAt = -Infinity;
  #requestedAt = -Infinity;

  /** Whether the history may be loaded now; if so, the next one has to wait. */
  allow(): boolean {
    const time = now();
    if (time - this.#requestedAt >= QUIET) {
      this.#allowedAt = time;
      this.#backoff.reset();
    }
    this.#requestedAt = time;
    if (time < this.#allowedAt) {
      return false;
    }
    this.#allowedAt = time + this.#backoff.next();
    return true;
  }
}

/** A sleep that `wake` ends early. */
export class Sleeper {
  #end?: () => void;

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.wake(), ms);
      this.#end = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  wake(): void {
    this.#end?.(); // a second call has no effect
  }
}

/** The result of a call; rejects after `ms` milliseconds. */
export function withTimeout<T>(ms: number, call: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const error = new Error(`no answer within ${ms / 1000} s`);
    const timer = setTimeout(() => reject(error), ms);
    call.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
