// The page's state, outside of React: panels, channels, the log, and the connection.

import { Connection, type ChannelListener, type ConnectionListener } from "./connection";
import type { ChannelLine, Hello, LogLine, Packet, Reload, State, User } from "./protocol";
import { RowBuffer } from "./rowBuffer";
import { Signal } from "./signal";

export const USERS: Record<string, User | null> = {
  Admin: { login: "admin", name: "Admin", email: "admin@localhost", role: "Admin" },
  Editor: { login: "editor", name: "Editor", email: "editor@localhost", role: "Editor" },
  Viewer: { login: "viewer", name: "Viewer", email: "viewer@localhost", role: "Viewer" },
  "no user (alerting)": null,
};

const MAX_LINES = 1000;
const MAX_HISTORIES = 24;
const MAX_PUSHED_PANELS = 6; // that open by themselves

export interface Channel {
  path: string;
  state: string;
  subscribers: number;
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

let panelCount = 0;

/** One panel: a query or a path, its rows, and the channel that they come from. */
export class Panel implements ChannelListener {
  readonly key = ++panelCount;
  readonly rows = new RowBuffer();
  readonly changed = new Signal();
  channelId: number | null = null;
  error = "";
  ended = false;
  answered = false; // a query that names no channel to follow
  historyRows = 0;
  onRows: () => void = () => undefined;

  constructor(
    readonly store: Store,
    public path: string,
    public query: Record<string, unknown> | null,
    readonly user: User | null,
    readonly userName: string,
    readonly delay: number,
  ) {}

  async open(withHistory: boolean): Promise<void> {
    this.error = "";
    this.ended = false;
    if (!withHistory) {
      return this.join();
    }
    const { connection, seconds } = this.store;
    const answer = await connection.request({
      type: "query",
      query: this.query ?? {},
      path: this.query ? "" : this.path,
      user: this.user,
      seconds,
      points: 2000,
    });
    const frames = answer.frames ?? [];
    const first = frames.find((frame) => frame.schema?.meta?.channel) ?? frames[0];
    if (answer.error) {
      this.error = answer.error;
    }
    if (first && this.rows.length === 0) {
      this.rows.add(first, false);
      this.historyRows = this.rows.total;
    }
    const channel = first?.schema?.meta?.channel;
    if (channel) {
      this.path = channel.split("/").slice(2).join("/");
    }
    if (answer.query && !this.query) {
      this.query = answer.query;
    }
    this.onRows();
    this.changed.emit();
    if (channel || (!this.query && !answer.error)) {
      await this.join();
    } else {
      this.answered = !answer.error;
      this.changed.emit();
    }
  }

  async join(): Promise<void> {
    const { id, error } = await this.store.connection.follow(this.path, this.user, this.delay, this);
    this.channelId = error ? null : id;
    this.error = error ?? "";
    this.changed.emit();
  }

  leave(): void {
    if (this.channelId !== null) {
      this.store.connection.leave(this.channelId);
      this.channelId = null;
    }
  }

  async rejoin(): Promise<void> {
    this.leave();
    await this.join();
  }

  onPackets(packets: Packet[]): void {
    this.ended = false;
    for (const packet of packets) {
      this.rows.add(packet);
    }
    this.onRows();
  }

  onEnd(): void {
    this.ended = true;
    this.changed.emit();
  }
}

export class Store implements ConnectionListener {
  readonly connection: Connection;
  readonly changed = new Signal(); // panels, forms, connection, settings
  readonly stateChanged = new Signal(); // each second: channels and totals
  readonly logChanged = new Signal();
  connected = false;
  hello: Hello | null = null;
  reload: Reload = { count: 0, seconds: 0, error: "" };
  channels: Channel[] = [];
  byPath = new Map<string, Channel>();
  totals: Record<string, number> = {};
  rates: Record<string, number> = {};
  pageDropped = 0;
  lines: LogLine[] = [];
  unseenErrors = 0;
  panels: Panel[] = [];
  saveResult: { ok: boolean; text: string } | null = null; // of "Save & test"
  userName = "Admin";
  seconds = 60;
  private stateAt = 0;
  private firstHello = true;
  private pushed = new Set<string>();

  constructor(url: string) {
    this.connection = new Connection(url, this);
  }

  onConnected(connected: boolean): void {
    this.connected = connected;
    if (connected) {
      this.lines = [];
      for (const panel of this.panels) {
        void panel.join();
      }
    } else {
      for (const panel of this.panels) {
        panel.channelId = null;
      }
    }
    this.changed.emit();
  }

  onHello(hello: Hello): void {
    this.hello = hello;
    document.title = `${hello.title} · aiostream console`;
    if (this.firstHello) {
      this.firstHello = false;
      if (hello.path) {
        this.addPanels(expandRanges(hello.path));
      }
    }
    this.changed.emit();
  }

  onState(state: State): void {
    const now = performance.now();
    const elapsed = this.stateAt ? (now - this.stateAt) / 1000 : 0;
    const before = this.byPath;
    this.stateAt = now;
    this.channels = state.channels.map((line) => channelOf(line, before.get(line[0]), elapsed));
    this.byPath = new Map(this.channels.map((channel) => [channel.path, channel]));
    for (const name of ["rows", "bytes"]) {
      const increase = (state.totals[name] ?? 0) - (this.totals[name] ?? 0);
      this.rates[name] = elapsed && increase >= 0 ? increase / elapsed : 0;
    }
    this.totals = state.totals;
    this.pageDropped = state.page_dropped;
    this.stateChanged.emit();
  }

  onLog(lines: LogLine[]): void {
    this.lines = [...this.lines, ...lines].slice(-MAX_LINES);
    this.unseenErrors += lines.filter((line) => line["@level"] === "error").length;
    this.logChanged.emit();
  }

  onReload(reload: Reload): void {
    this.reload = reload;
    this.changed.emit();
  }

  /** Channels that got their first pushed rows: each is opened once, so that a closed one stays closed. */
  onPushed(paths: string[]): void {
    for (const path of paths.filter((each) => !this.pushed.has(each))) {
      this.pushed.add(path);
      const isOpen = this.panels.some((panel) => panel.path === path);
      if (!isOpen && this.panels.length < MAX_PUSHED_PANELS) {
        this.addPanel(path, null);
      }
    }
  }

  addPanel(path: string, query: Record<string, unknown> | null, delay = 0, withHistory = true): void {
    const panel = new Panel(this, path, query, USERS[this.userName] ?? null, this.userName, delay);
    this.panels = [...this.panels, panel];
    void panel.open(withHistory);
    this.changed.emit();
  }

  /** Very many panels start without history: that many queries at once would delay their live rows. */
  addPanels(paths: string[]): void {
    paths.forEach((path) => this.addPanel(path, null, 0, paths.length <= MAX_HISTORIES));
  }

  removePanel(panel: Panel): void {
    panel.leave();
    this.panels = this.panels.filter((each) => each !== panel);
    this.changed.emit();
  }

  removeAllPanels(): void {
    this.panels.forEach((panel) => panel.leave());
    this.panels = [];
    this.changed.emit();
  }
}

function channelOf(line: ChannelLine, before: Channel | undefined, elapsed: number): Channel {
  const [path, state, subscribers, packets, rows, bytes, dropped, starts, errors, cursor, error] = line;
  const rate = (now: number, then: number | undefined): number =>
    elapsed && then !== undefined && now >= then ? (now - then) / elapsed : 0;
  return {
    path,
    state,
    subscribers,
    packets,
    rows,
    bytes,
    dropped,
    starts,
    errors,
    cursor,
    error,
    rowsPerSecond: rate(rows, before?.rows),
    bytesPerSecond: rate(bytes, before?.bytes),
  };
}

/** "walk/{1..12}/7" expands to twelve paths. */
export function expandRanges(text: string): string[] {
  const found = /\{(\d+)\.\.(\d+)\}/.exec(text);
  if (!found) {
    return [text];
  }
  const [range, from, to] = [found[0], Number(found[1]), Number(found[2])];
  const count = Math.min(Math.abs(to - from) + 1, 5000);
  const step = to >= from ? 1 : -1;
  return Array.from({ length: count }, (_, n) =>
    expandRanges(text.replace(range, String(from + n * step))),
  ).flat();
}
