/** How long to wait: between calls that fail, between reloads, and in between at all. */

/** Milliseconds that never go back, unlike the clock on the wall. */
export const now = (): number => performance.now();

/** Waits that double from a shortest to a longest one. */
export class Backoff {
  readonly #shortest: number;
  readonly #longest: number;
  #wait: number;

  constructor(shortest: number, longest: number) {
    this.#shortest = shortest;
    this.#longest = longest;
    this.#wait = shortest;
  }

  next(): number {
    const wait = this.#wait;
    this.#wait = Math.min(2 * wait, this.#longest);
    return wait;
  }

  reset(): void {
    this.#wait = this.#shortest;
  }
}

/** When a panel may load its history again: at once, then 2, 4 … 30 s apart, until it is calm. */
export class Reloads {
  readonly #backoff = new Backoff(2_000, 30_000);
  #at = -Infinity;
  #asked = -Infinity;

  may(): boolean {
    const time = now();
    if (time - this.#asked >= CALM) {
      this.#at = time;
      this.#backoff.reset();
    }
    this.#asked = time;
    if (time < this.#at) {
      return false;
    }
    this.#at = time + this.#backoff.next();
    return true;
  }
}

const CALM = 30_000;

/** A sleep that can be cut short. */
export class Sleeper {
  #end?: () => void;

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.wake(), Math.max(0, ms));
      this.#end = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  wake(): void {
    const end = this.#end;
    this.#end = undefined;
    end?.();
  }
}

/** The call's answer, or an error once it has taken too long. */
export function within<T>(ms: number, call: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = new Error(`no answer within ${ms / 1000} s`);
    const timer = setTimeout(() => reject(late), ms);
    call.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
