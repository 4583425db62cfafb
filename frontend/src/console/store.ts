// What the page knows, outside of React: components read it and are told when it changes.

import { useEffect, useReducer } from "react";
import { ChannelLine, Feed, Hello, Link, LogLine, News, Packet, Reload, State, User } from "./link";
import { Rows } from "./rows";

export const USERS: Record<string, User | null> = {
  Admin: { login: "admin", name: "Admin", email: "admin@localhost", role: "Admin" },
  Editor: { login: "editor", name: "Editor", email: "editor@localhost", role: "Editor" },
  Viewer: { login: "viewer", name: "Viewer", email: "viewer@localhost", role: "Viewer" },
  "nobody (alerting)": null,
};

const KEPT_LINES = 1000;
const MANY = 24;

export class Signal {
  version = 0;
  private readonly readers = new Set<() => void>();

  change(): void {
    this.version++;
    for (const reader of [...this.readers]) {
      reader();
    }
  }

  subscribe(reader: () => void): () => void {
    this.readers.add(reader);
    return () => this.readers.delete(reader);
  }
}

export function useSignal(signal: Signal): number {
  const [, again] = useReducer((n: number) => n + 1, 0);
  useEffect(() => signal.subscribe(() => again()), [signal]);
  return signal.version;
}

export interface Channel {
  path: string;
  state: string;
  readers: number;
  packets: number;
  rows: number;
  bytes: number;
  dropped: number;
  starts: number;
  errors: number;
  cursor: string;
  error: string;
  rowsPerSecond: number;
  bytesPerSecond: number;
}

let numbers = 0;

// One panel: a query or a path, its rows, and the feed that they come from.
export class Panel implements Feed {
  readonly key = ++numbers;
  readonly rows = new Rows();
  readonly signal = new Signal();
  feed: number | null = null;
  error = "";
  over = false;
  answered = false; // a query that names no channel to follow
  history = 0;
  onRows: () => void = () => undefined;

  constructor(
    readonly store: Store,
    public path: string,
    public query: Record<string, unknown> | null,
    readonly user: User | null,
    readonly who: string,
    readonly delay: number,
  ) {}

  async open(history: boolean): Promise<void> {
    this.error = "";
    this.over = false;
    if (!history) {
      return this.join();
    }
    const { link, seconds } = this.store;
    const asked = { do: "query", query: this.query ?? {}, path: this.query ? "" : this.path };
    const answer = await link.ask({ ...asked, user: this.user, seconds, points: 2000 });
    const frames = answer.frames ?? [];
    const first = frames.find((frame) => frame.schema?.meta?.channel) ?? frames[0];
    if (answer.error) {
      this.error = answer.error;
    }
    if (first && this.rows.length === 0) {
      this.rows.add(first, false);
      this.history = this.rows.total;
    }
    const channel = first?.schema?.meta?.channel;
    if (channel) {
      this.path = channel.split("/").slice(2).join("/");
    }
    if (answer.query && !this.query) {
      this.query = answer.query;
    }
    this.onRows();
    this.signal.change();
    if (channel || (!this.query && !answer.error)) {
      await this.join();
    } else {
      this.answered = !answer.error;
      this.signal.change();
    }
  }

  async join(): Promise<void> {
    const { id, error } = await this.store.link.follow(this.path, this.user, this.delay, this);
    this.feed = error ? null : id;
    this.error = error ?? "";
    this.signal.change();
  }

  leave(): void {
    if (this.feed !== null) {
      this.store.link.leave(this.feed);
      this.feed = null;
    }
  }

  async reconnect(): Promise<void> {
    this.leave();
    await this.join();
  }

  packets(packets: Packet[]): void {
    this.over = false;
    for (const packet of packets) {
      this.rows.add(packet);
    }
    this.onRows();
  }

  ended(): void {
    this.over = true;
    this.signal.change();
  }
}

export class Store implements News {
  readonly link: Link;
  readonly signal = new Signal(); // panels, forms, connection, settings
  readonly pulse = new Signal(); // each second: channels and totals
  readonly logged = new Signal();
  online = false;
  known: Hello | null = null;
  reloading: Reload = { count: 0, seconds: 0, error: "" };
  channels: Channel[] = [];
  byPath = new Map<string, Channel>();
  totals: Record<string, number> = {};
  rates: Record<string, number> = {};
  pageDropped = 0;
  lines: LogLine[] = [];
  unseenErrors = 0;
  panels: Panel[] = [];
  saved: { ok: boolean; text: string } | null = null; // what "Save & test" has said
  who = "Admin";
  seconds = 60;
  private stateAt = 0;
  private begun = false;

  constructor(url: string) {
    this.link = new Link(url, this);
  }

  connected(yes: boolean): void {
    this.online = yes;
    if (yes) {
      this.lines = [];
      for (const panel of this.panels) {
        void panel.join();
      }
    } else {
      for (const panel of this.panels) {
        panel.feed = null;
      }
    }
    this.signal.change();
  }

  hello(hello: Hello): void {
    this.known = hello;
    document.title = `${hello.title} · aiostream console`;
    if (!this.begun) {
      this.begun = true;
      if (hello.path) {
        this.add(hello.path, null);
      }
    }
    this.signal.change();
  }

  state(state: State): void {
    const now = performance.now();
    const passed = this.stateAt ? (now - this.stateAt) / 1000 : 0;
    const before = this.byPath;
    this.stateAt = now;
    this.channels = state.channels.map((line) => channelOf(line, before.get(line[0]), passed));
    this.byPath = new Map(this.channels.map((channel) => [channel.path, channel]));
    for (const name of ["rows", "bytes"]) {
      const grown = (state.totals[name] ?? 0) - (this.totals[name] ?? 0);
      this.rates[name] = passed && grown >= 0 ? grown / passed : 0;
    }
    this.totals = state.totals;
    this.pageDropped = state.page_dropped;
    this.pulse.change();
  }

  log(lines: LogLine[]): void {
    this.lines = [...this.lines, ...lines].slice(-KEPT_LINES);
    this.unseenErrors += lines.filter((line) => line["@level"] === "error").length;
    this.logged.change();
  }

  reload(reload: Reload): void {
    this.reloading = reload;
    this.signal.change();
  }

  add(path: string, query: Record<string, unknown> | null, delay = 0, history = true): void {
    const panel = new Panel(this, path, query, USERS[this.who] ?? null, this.who, delay);
    this.panels = [...this.panels, panel];
    void panel.open(history);
    this.signal.change();
  }

  // Very many begin with their live rows: all their histories at once would keep those waiting.
  addAll(paths: string[]): void {
    paths.forEach((path) => this.add(path, null, 0, paths.length <= MANY));
  }

  remove(panel: Panel): void {
    panel.leave();
    this.panels = this.panels.filter((each) => each !== panel);
    this.signal.change();
  }

  clear(): void {
    this.panels.forEach((panel) => panel.leave());
    this.panels = [];
    this.signal.change();
  }
}

function channelOf(line: ChannelLine, before: Channel | undefined, passed: number): Channel {
  const [path, state, readers, packets, rows, bytes, dropped, starts, errors, cursor, error] = line;
  const rate = (now: number, then: number | undefined): number =>
    passed && then !== undefined && now >= then ? (now - then) / passed : 0;
  return {
    path, state, readers, packets, rows, bytes, dropped, starts, errors, cursor, error,
    rowsPerSecond: rate(rows, before?.rows),
    bytesPerSecond: rate(bytes, before?.bytes),
  };
}

// "walk/{1..12}/7" is twelve paths.
export function expand(text: string): string[] {
  const found = /\{(\d+)\.\.(\d+)\}/.exec(text);
  if (!found) {
    return [text];
  }
  const [whole, from, to] = [found[0], Number(found[1]), Number(found[2])];
  const count = Math.min(Math.abs(to - from) + 1, 5000);
  const step = to >= from ? 1 : -1;
  return Array.from({ length: count }, (_, n) => expand(text.replace(whole, String(from + n * step)))).flat();
}
