// A Grafana that has rows 1 … last and tells what it is told to tell; and what a panel drew of it.
import { vi } from "vitest";

import { type Emission, Failure, Follower, type History, type Source } from "../../src/seam/follower";
import type { Packet, Page } from "../../src/seam/packets";
import { type Listener, Taps } from "../../src/seam/tap";

export const CHANNEL = "ds/uid/x/log/a";
export const NOW = 1_000_000;

/** Rows prev+1 … last: row n has the time n seconds, n, and its epoch. */
export function packet(prev: number, last: number, epoch = "e", more: Partial<Page> = {}): Page {
  const numbers = Array.from({ length: last - prev }, (_, place) => prev + 1 + place);
  const data = numbers.length ? { data: { values: [numbers.map((n) => n * 1000), numbers, numbers.map(() => epoch)] } } : {};
  return { seam: { epoch, prev, last }, ...data, ...more };
}

export class Script {
  last = 10;
  first = 1; // the oldest row that pages still have
  epoch = "e";
  page = 5_000; // rows in one page
  failures = 0; // calls that fail from now on
  failure = new Error("down");
  state: Page["state"]; // of pages
  readonly calls: Array<{ name: string; at: number }> = [];
  readonly listeners = new Set<Listener>();
  subscriptions = 0;
  position = true; // a subscription is answered with where the stream stands
  readonly taps = new Taps((_, listener) => {
    this.subscriptions++;
    this.listeners.add(listener);
    queueMicrotask(() => listener.event("connected", this.position ? packet(this.last, this.last, this.epoch) : undefined));
    return () => this.listeners.delete(listener);
  });

  history(points = 100_000, from = 0): History<string> {
    const numbers = packet(0, this.last).data?.values[1] ?? [];
    const drawn = (numbers as number[]).filter((n) => n * 1000 >= from).slice(-points);
    return {
      frame: this.epoch,
      columns: [drawn.map((n) => n * 1000), drawn, drawn.map(() => this.epoch)],
      time: 0,
      seam: { channel: CHANNEL, epoch: this.epoch, last: this.last },
    };
  }

  rows(after: number): Page {
    const prev = Math.max(after, this.first - 1);
    const last = Math.max(prev, Math.min(this.last, prev + this.page));
    return packet(prev, last, this.epoch, { more: last < this.last, truncated: after < this.first - 1, state: this.state });
  }

  called(name: string): void {
    this.calls.push({ name, at: Date.now() });
    if (this.failures > 0) {
      this.failures--;
      throw this.failure;
    }
  }

  /** Seconds between the calls of a name and the first of them. */
  times(name: string): number[] {
    const found = this.calls.filter((call) => call.name === name).map((call) => call.at);
    return found.map((at) => (at - found[0]) / 1000);
  }

  tell(message: Partial<Packet> | undefined, status?: string): void {
    this.listeners.forEach((listener) => listener.event(status, message));
  }

  open(options: Partial<Source<string>> & { history?: History<string> } = {}): Panel {
    return new Panel(this, options);
  }
}

export class Panel {
  readonly drawn: Array<Emission<string>> = [];
  readonly follower: Follower<string>;

  constructor(script: Script, options: Partial<Source<string>> & { history?: History<string> }) {
    const source: Source<string> = {
      load: async () => {
        script.called("load");
        return script.history(source.points);
      },
      rows: async (_, after) => {
        script.called("rows");
        return script.rows(after);
      },
      from: () => 0,
      points: 100_000,
      hidden: () => false,
      ...options,
    };
    this.follower = new Follower(source, script.taps, (emission) => this.drawn.push(emission));
    void this.follower.run(options.history ?? script.history(source.points));
  }

  /** The rows' numbers in each frame. */
  get numbers(): number[][] {
    return this.drawn.map(({ columns }) => columns[1] as number[]);
  }

  get latest(): number[] {
    return this.numbers[this.numbers.length - 1];
  }

  get notices(): string[] {
    return this.drawn[this.drawn.length - 1].notices.map(({ severity, text }) => `${severity}: ${text}`);
  }
}

export const upto = (last: number, first = 1): number[] => Array.from({ length: last - first + 1 }, (_, n) => first + n);
export const pass = (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1000);
export const lasting = (message: string) => new Failure(message, true);
