// A fake Grafana with rows 1 … last, whose packets a test sends; and a panel that records what it drew.
import { vi } from "vitest";

import { type Drawing, Failure, Follower, type History, type HistoryLoader } from "../../src/exact/follower";
import { type Cursor, type Packet, type Page, pairOf } from "../../src/exact/packets";
import { type Listener, Subscriptions } from "../../src/exact/subscription";

export const CHANNEL = "ds/uid/x/log/a";
export const NOW = 1_000_000;

/** Rows prev+1 … last: row n has the time offset + n seconds, the number n, and its epoch. */
export function packet(prev: number, last: number, epoch = "e", more: Partial<Page> = {}, offset = 0): Page {
  const numbers = Array.from({ length: last - prev }, (_, index) => prev + 1 + index);
  const data = numbers.length ? { data: { values: [numbers.map((n) => (offset + n) * 1000), numbers, numbers.map(() => epoch)] } } : {};
  return { cursor: { epoch, prev, last }, ...data, ...more };
}

/** The same packet with cursors in two columns: row n is on page n / 7, in line n % 7. */
export function inPairs(packet: Page): Page {
  const { epoch, prev, last } = packet.cursor;
  const values = packet.data?.values;
  const numbers = (values?.[1] ?? []) as number[];
  const columns = [numbers.map((n) => Math.floor(n / 7)), numbers.map((n) => n % 7)];
  return {
    ...packet,
    cursor: { epoch, prev: toPair(prev), last: toPair(last), ...(values && { column: [3, 4] as [number, number] }) },
    ...(values && { data: { values: [...values, ...columns] } }),
  };
}

/** The same packet with cursors as texts in one column. */
export function inTexts(packet: Page): Page {
  const { cursor, data, ...others } = inPairs(packet);
  if (!data) {
    return { cursor, ...others };
  }
  const [pages, lines] = data.values.slice(3) as number[][];
  const texts = pages!.map((page, row) => `${page}-${lines![row]}`);
  return { cursor: { ...cursor, column: 3 }, data: { values: [...data.values.slice(0, 3), texts] }, ...others };
}

/** A number as a cursor of two. */
export function toPair(number: Cursor): string {
  const n = Number(number);
  return n < 0 ? "-1" : pairOf(Math.floor(n / 7), n % 7);
}

/** The number of such a cursor. */
export function fromPair(cursor: Cursor): number {
  if (typeof cursor === "number" || cursor === "-1") {
    return Number(cursor);
  }
  const [page, line] = cursor.split("-").map(Number);
  return 7 * page! + line!;
}

export class FakeGrafana {
  last = 10;
  first = 1; // the oldest row that pages still have
  epoch = "e";
  offset = 0; // seconds that the times of this epoch's rows are ahead of their numbers
  upstream?: string;
  pageRows = 5_000; // rows in one page
  failures = 0; // the next calls that fail
  failure = new Error("down");
  status: Page["status"]; // of pages
  cursors: "numbers" | "pairs" | "texts" = "numbers";
  thins = false; // a history of more rows than the limit has rows of its whole range
  readonly calls: Array<{ name: string; at: number }> = [];
  readonly listeners = new Set<Listener>();
  opened = 0; // raw subscriptions that were opened
  sendsInitial = true; // a new subscription gets the newest cursor
  readonly subscriptions = new Subscriptions((_, listener) => {
    this.opened++;
    this.listeners.add(listener);
    queueMicrotask(() => listener.event("connected", this.sendsInitial ? this.#wire(packet(this.last, this.last, this.epoch)) : undefined));
    return () => this.listeners.delete(listener);
  });

  history(limit = 100_000, from = 0): History<string> {
    const numbers = packet(0, this.last).data?.values[1] ?? [];
    const found = (numbers as number[]).filter((n) => (this.offset + n) * 1000 >= from);
    const step = Math.ceil(found.length / (limit - 1));
    const drawn = this.thins && found.length > limit
      ? found.filter((_, row) => row % step === 0 || row === found.length - 1)
      : found.slice(-limit);
    const pages = drawn.map((n) => Math.floor(n / 7));
    const lines = drawn.map((n) => n % 7);
    const added = { numbers: [], pairs: [pages, lines], texts: [pages.map((page, row) => `${page}-${lines[row]}`)] };
    return {
      frame: this.epoch,
      columns: [drawn.map((n) => (this.offset + n) * 1000), drawn, drawn.map(() => this.epoch), ...added[this.cursors]],
      time: 0,
      cursor: {
        channel: CHANNEL,
        epoch: this.epoch,
        last: this.cursors === "numbers" ? this.last : toPair(this.last),
        upstream: this.upstream,
        thinned: this.thins ? 10 : undefined,
      },
    };
  }

  #wire(page: Page): Page {
    return { numbers: (same: Page) => same, pairs: inPairs, texts: inTexts }[this.cursors](page);
  }

  rows(cursor: Cursor): Page {
    const after = fromPair(cursor);
    const prev = Math.max(after, this.first - 1);
    const last = Math.max(prev, Math.min(this.last, prev + this.pageRows));
    const more = { more: last < this.last, truncated: after < this.first - 1, status: this.status };
    return this.#wire(packet(prev, last, this.epoch, more, this.offset));
  }

  /** The plugin starts again: rows have another epoch, and times `offset` seconds ahead of their numbers. */
  restart(epoch: string, last: number, offset = 0): void {
    Object.assign(this, { epoch, last, offset, first: 1 });
  }

  /** Write rows up to a number, and send them. */
  write(last: number): void {
    const prev = this.last;
    this.last = last;
    this.send(packet(prev, last, this.epoch, {}, this.offset));
  }

  recordCall(name: string): void {
    this.calls.push({ name, at: Date.now() });
    if (this.failures > 0) {
      this.failures--;
      throw this.failure;
    }
  }

  /** Seconds between the calls with a name and the first of them. */
  times(name: string): number[] {
    const found = this.calls.filter((call) => call.name === name).map((call) => call.at);
    return found.map((at) => (at - found[0]) / 1000);
  }

  send(message: Partial<Packet> | undefined, connection?: string): void {
    const sent = message?.cursor ? this.#wire(message as Page) : message;
    this.listeners.forEach((listener) => listener.event(connection, sent));
  }

  endSubscriptions(): void {
    [...this.listeners].forEach((listener) => (this.listeners.delete(listener), listener.ended()));
  }

  open(options: PanelOptions = {}): Panel {
    return new Panel(this, options);
  }
}

type PanelOptions = Partial<HistoryLoader<string>> & { history?: History<string> };

export class Panel {
  readonly drawn: Array<Drawing<string>> = [];
  /** The number of drawings before each load, and the epoch and last row of the history. */
  readonly loads: Array<{ drawings: number; epoch: string; last: number }> = [];
  readonly follower: Follower<string>;

  constructor(grafana: FakeGrafana, options: PanelOptions) {
    const loader: HistoryLoader<string> = {
      load: async () => {
        grafana.recordCall("load");
        this.loads.push({ drawings: this.drawn.length, epoch: grafana.epoch, last: grafana.last });
        return grafana.history(loader.limit);
      },
      rows: async (_, after) => {
        grafana.recordCall("rows");
        return grafana.rows(after);
      },
      sameColumns: () => true,
      from: () => 0,
      limit: 100_000,
      hidden: () => false,
      key: "1",
      ...options,
    };
    this.follower = new Follower(loader, grafana.subscriptions, (drawing) => this.drawn.push(drawing));
    this.loads.push({ drawings: 0, epoch: grafana.epoch, last: grafana.last });
    void this.follower.run(options.history ?? grafana.history(loader.limit));
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

/** first, first + 1 … last */
export const upto = (last: number, first = 1): number[] => Array.from({ length: last - first + 1 }, (_, n) => first + n);
export const advance = (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1000);
export const permanent = (message: string) => new Failure(message, true);
