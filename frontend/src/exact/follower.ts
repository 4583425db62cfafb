/**
 * Follows one frame of an exact query: each frame that it draws has every row once and in order.
 *
 *     history ──▶ ┌────────┐      a packet that continues the buffer is appended
 *     packets ──▶ │ buffer │ ──▶  frames
 *     pages   ──▶ └────────┘      after a gap, the rows between are fetched first
 *
 * docs/exact.md has the rules. Packets wait in a queue and are handled one after the other; a frame
 * never spans a gap.
 */

import { messageOf } from "../responses";
import { RowBuffer } from "./buffer";
import { type Column, slice } from "./columns";
import { keep } from "./keeping";
import { type Annotation, type Conditions, type Notice, Notices } from "./notices";
import { type Cursor, type Packet, type Page, type Status, columnsOf, firstAfter } from "./packets";
import type { ChannelSubscription, Subscriptions } from "./subscription";
import { DrawThrottle } from "./throttle";
import { Backoff, ReloadLimiter, Sleeper, now, withTimeout } from "./timing";

const POLL_INTERVAL = 2_000; // ms between two checks whether packets arrive
const QUEUE_LIMIT = 500; // queued packets; beyond it the oldest are dropped and fetched later
const CALL_TIMEOUT = 30_000; // ms
const TRANSIENT_BACKOFF = [500, 4_000] as const; // ms between failing calls: first and longest delay
const PERMANENT_BACKOFF = [2_000, 15_000] as const; // ms, after an error that a retry will not cure
const PATIENCE = 3_000; // ms after which a panel shows that it waits
const LAG_BACKOFF = [100, 2_000] as const; // ms, for a server that has not read those rows yet

/** The answer of an exact query. `frame` is whatever the caller makes its frames from. */
export interface History<F> {
  frame: F;
  columns: Column[];
  /** Index of the column with the rows' time in Unix ms; -1 without one. */
  time: number;
  /**
   * `upstream` names the upstream system of a stream whose history can be read again. `thinned`: a
   * history of more rows than the limit is thinned, and with live rows so many times as many are drawn.
   */
  cursor: { channel: string; epoch: string; last: Cursor; upstream?: string; thinned?: number };
}

/** A call that failed; `permanent` if a retry cannot help. */
export class Failure extends Error {
  constructor(message: string, readonly permanent = false) {
    super(message);
  }
}

/** Loads the rows of one frame, and has the limits of what the panel draws. */
export interface HistoryLoader<F> {
  /** The history of the current range. */
  load(): Promise<History<F>>;
  /** The resource `replay/rows`. */
  rows(channel: string, after: Cursor): Promise<Page>;
  /** Whether rows of two frames may be drawn in one. */
  sameColumns(frame: F, other: F): boolean;
  /** Left edge of the panel's current range, in Unix ms. */
  from(): number;
  /** Most rows of a history. */
  limit: number;
  /** Whether the panel is invisible. */
  hidden(): boolean;
  /** Names the frame of the panel: the same after a refresh. */
  key: string;
}

/** What is drawn at once. */
export interface Drawing<F> {
  frame: F;
  columns: Column[];
  notices: Notice[];
  annotations: Annotation[];
}

const CLOSED = Symbol("closed");

export class Follower<F> {
  readonly #loader: HistoryLoader<F>;
  readonly #subscriptions: Subscriptions;
  readonly #draw: (drawing: Drawing<F>) => void;
  #buffer!: RowBuffer;
  #frame!: F;
  #epoch = "";
  #upstream?: string;
  #cursor: Cursor = -1;
  #subscription?: ChannelSubscription;
  #queue: Packet[] = [];
  #epochDiffers = false; // packets have another epoch than the history
  #truncated = false; // rows after the cursor are lost, and a reload is not allowed yet
  #limit = 0; // most rows that are drawn
  #spare = 0; // rows that may come until the history is loaded again, to thin them
  #continued = false; // a packet or page has continued the history since it was loaded
  #missedPolls = 0; // checks in a row that found no live socket
  #pollAt = 0;
  #closed = false;
  #notices = new Notices();
  readonly #reloads = new ReloadLimiter();
  readonly #thinnings = new ReloadLimiter();
  readonly #idle = new Sleeper();
  readonly #pause = new Sleeper();
  readonly #throttle: DrawThrottle;

  constructor(loader: HistoryLoader<F>, subscriptions: Subscriptions, draw: (drawing: Drawing<F>) => void) {
    this.#loader = loader;
    this.#subscriptions = subscriptions;
    this.#draw = draw;
    this.#throttle = new DrawThrottle(() => this.#drawFrame(), loader.hidden);
  }

  /** Follow from a history that was just loaded, until `close`. */
  async run(history: History<F>): Promise<void> {
    try {
      this.#throwIfClosed();
      this.#resume(this.#subscriptions.of(history.cursor.channel).followers);
      this.#begin(history);
      for (;;) {
        await this.#step();
      }
    } catch (error) {
      if (error !== CLOSED) {
        throw error;
      }
    } finally {
      this.close();
    }
  }

  close(): void {
    this.#closed = true;
    this.#throttle.close();
    this.#subscription?.leave(this);
    this.#idle.wake();
    this.#pause.wake();
  }

  /** Queues a packet of the subscription. */
  receive(packet: Packet): void {
    this.#queue.push(packet);
    if (this.#queue.length > QUEUE_LIMIT) {
      this.#queue.shift();
    }
    this.#idle.wake();
  }

  /** Shows the stream's status at once, even while rows are being fetched. */
  receiveStatus(status: Status | null): void {
    this.#update({ status });
  }

  /** Draw at once: the panel has come back. */
  redraw(): void {
    this.#throttle.request(true);
  }

  becameVisible(): void {
    this.#throttle.drawPending();
    this.#pollAt = now();
    this.#idle.wake();
  }

  /** Begin with what the panel has drawn before it was refreshed: its history may begin later. */
  #resume(followers: Map<string, unknown>): void {
    const { key } = this.#loader;
    const before = followers.get(key) as this | undefined;
    if (before && before.#closed) {
      this.#buffer = before.#buffer;
      this.#frame = before.#frame;
      this.#epoch = before.#epoch;
      this.#cursor = before.#cursor;
      this.#upstream = before.#upstream;
      this.#notices = before.#notices;
    }
    followers.set(key, this);
  }

  #begin(history: History<F>): void {
    const { cursor } = history;
    const { limit } = this.#loader;
    this.#limit = limit * (cursor.thinned ?? 1);
    this.#spare = cursor.thinned ? limit : Infinity;
    if (!this.#buffer || history.columns.length > 0) {
      this.#replace(history);
    } else {
      this.#continueWithoutColumns();
    }
    this.#epoch = cursor.epoch;
    this.#cursor = cursor.last;
    this.#epochDiffers = this.#truncated = this.#continued = false;
    this.#pollAt = now() + POLL_INTERVAL;
    this.#notices.update({ blocked: false, waiting: undefined, failure: undefined });
    this.#throttle.request(true);
    this.#subscribe(cursor.channel);
  }

  /** Draw a history, after the drawn rows that stay. */
  #replace({ frame, columns, time, cursor }: History<F>): void {
    const buffer = new RowBuffer(columns, time);
    const full = buffer.rows >= this.#limit;
    this.#notices.cut = full ? buffer.timeOf(0) : undefined;
    if (this.#buffer && !full) {
      const sameEpoch = cursor.epoch === this.#epoch;
      const { rows, gap } = keep(
        this.#buffer,
        buffer,
        this.#loader.from(),
        sameEpoch,
        cursor.upstream === this.#upstream,
        this.#loader.sameColumns(this.#frame, frame)
      );
      const isSame = sameEpoch && cursor.last === this.#cursor; // nothing has come since
      this.#notices.addGap(isSame ? undefined : gap, buffer.earliest, rows.rows > 0);
      buffer.prepend(rows);
    }
    this.#frame = frame;
    this.#buffer = buffer;
    this.#upstream = cursor.upstream;
  }

  /** A new log has no columns until its first row, which begins another epoch. Until then the rows stay. */
  #continueWithoutColumns(): void {
    const after = this.#buffer.between(this.#loader.from(), Infinity).latest;
    if (after > -Infinity) {
      this.#notices.addGap({ after, certain: false }, Infinity, true);
    }
  }

  #subscribe(channel: string): void {
    const subscription = this.#subscriptions.of(channel);
    if (subscription !== this.#subscription) {
      this.#subscription?.leave(this);
      this.#subscription = subscription;
      subscription.join(this);
    }
  }

  async #step(): Promise<void> {
    if (!this.#queue.length) {
      await this.#idle.sleep(this.#pollAt - now());
      this.#throwIfClosed();
    }
    if (now() >= this.#pollAt) {
      this.#pollAt = now() + POLL_INTERVAL;
      await this.#poll();
    } else if (this.#queue.length) {
      await this.#handle(this.#queue.shift()!);
    }
    const { limit, hidden } = this.#loader;
    if (this.#spare < 0 && this.#buffer.rows > 2 * limit && !hidden() && this.#thinnings.allow()) {
      await this.#reload();
    }
  }

  /** Fetch rows while packets do not arrive or cannot be used. */
  async #poll(): Promise<void> {
    const live = this.#subscription!.live;
    this.#missedPolls = live ? 0 : this.#missedPolls + 1;
    this.#update({ polling: this.#missedPolls > 1 });
    if (!live || this.#epochDiffers || this.#truncated) {
      await this.#fetch(this.#cursor);
    }
  }

  async #handle(packet: Packet): Promise<void> {
    if (packet.cursor.epoch !== this.#epoch) {
      await this.#changeEpoch();
      return;
    }
    if (this.#epochDiffers) {
      this.#epochDiffers = false;
      this.#update({ blocked: this.#truncated });
    }
    if (this.#truncated) {
      return;
    }
    if (packet.cursor.prev > this.#cursor) {
      await this.#fetch(packet.cursor.prev);
    }
    if (packet.cursor.epoch === this.#epoch && packet.cursor.prev <= this.#cursor) {
      await this.#append(packet);
    }
  }

  /** Fetch the rows after the cursor until it has reached `wanted`; at least one call. */
  async #fetch(wanted: Cursor): Promise<void> {
    const backoff = new Backoff(...LAG_BACKOFF);
    const start = now();
    for (;;) {
      const before = this.#cursor;
      const page = await this.#retry(() => this.#loader.rows(this.#subscription!.channel, before));
      this.receiveStatus(page.status ?? null);
      if (page.cursor.epoch !== this.#epoch) {
        return this.#changeEpoch();
      }
      if (page.truncated || page.cursor.prev > before) {
        return this.#handleTruncation(page);
      }
      if (!(await this.#append(page))) {
        return;
      }
      if (page.more && this.#cursor > before) {
        continue;
      }
      if (this.#cursor >= wanted || this.#queueHasOtherEpoch()) {
        return;
      }
      if (now() - start >= PATIENCE) {
        this.#update({ waiting: "for rows that the server has not read yet" });
      }
      await this.#sleep(backoff.next());
    }
  }

  /** Append the rows after the cursor. Returns false if the packet has other columns. */
  async #append(packet: Packet): Promise<boolean> {
    this.#continued = true;
    if (packet.cursor.last <= this.#cursor) {
      return true;
    }
    const columns = columnsOf(packet);
    if (columns.length > 0 && columns.length !== this.#buffer.width) {
      await this.#changeEpoch();
      return false;
    }
    const first = firstAfter(packet, columns, this.#cursor);
    this.#closeGap(columns, first);
    this.#spare += this.#buffer.rows;
    this.#buffer.append(columns, first);
    this.#spare -= this.#buffer.rows;
    this.#cursor = packet.cursor.last;
    this.#update({ waiting: undefined });
    if (this.#buffer.rows > 2 * this.#limit) {
      this.#trim(); // a hidden tab may not draw for hours
    }
    this.#throttle.request();
    return true;
  }

  /** The first rows of a new epoch replace those of the earlier one from their time on. */
  #closeGap(columns: Column[], first: number): void {
    const rows = columns.map((column) => slice(column, first));
    const begin = this.#notices.isOpen ? new RowBuffer(rows, this.#buffer.time).earliest : Infinity;
    if (begin < Infinity) {
      this.#buffer = this.#buffer.between(-Infinity, begin);
      this.#notices.closeGap(begin);
    }
  }

  /** Load the history again as soon as the limiter allows; until then poll. */
  async #changeEpoch(): Promise<void> {
    this.#epochDiffers = await this.#isBlocked();
  }

  /** Rows after the cursor are gone from the log; the history may still have them. */
  async #handleTruncation(page: Page): Promise<void> {
    if (!this.#continued) {
      // not even a history that was just loaded can be continued: go on after the gap, with a notice
      this.#addGapBefore(columnsOf(page));
      this.#cursor = page.cursor.prev;
      this.#throttle.request();
      await this.#append(page);
    } else {
      this.#truncated = await this.#isBlocked();
    }
  }

  #addGapBefore(columns: Column[]): void {
    if (this.#notices.isOpen) {
      return; // its first rows will close it
    }
    const { rows, time } = this.#buffer;
    const before = new RowBuffer(columns, time).timeOf(0) || Date.now();
    const after = rows > 0 ? this.#buffer.timeOf(rows - 1) : undefined;
    this.#notices.addGap({ after, before, certain: true }, before, true);
  }

  /** Load the history again. Returns whether the limiter does not allow it yet. */
  async #isBlocked(): Promise<boolean> {
    const blocked = !this.#reloads.allow();
    if (blocked) {
      this.#update({ blocked });
    } else {
      await this.#reload();
    }
    return blocked;
  }

  async #reload(): Promise<void> {
    this.#begin(await this.#retry(() => this.#loader.load()));
  }

  /** Repeat a call until it succeeds, with back-off. */
  async #retry<T>(call: () => Promise<T>): Promise<T> {
    const transient = new Backoff(...TRANSIENT_BACKOFF);
    const permanent = new Backoff(...PERMANENT_BACKOFF);
    for (let failures = 1; ; failures++) {
      let delay: number;
      try {
        const answer = await this.#patiently(withTimeout(CALL_TIMEOUT, call()));
        this.#throwIfClosed();
        this.#update({ failure: undefined, waiting: undefined });
        return answer;
      } catch (error) {
        this.#throwIfClosed();
        const isPermanent = error instanceof Failure && error.permanent;
        delay = (isPermanent ? permanent : transient).next();
        if (isPermanent || failures > 1) {
          this.#update({ failure: messageOf(error) });
        }
      }
      await this.#sleep(delay);
    }
  }

  async #patiently<T>(call: Promise<T>): Promise<T> {
    const timer = setTimeout(() => this.#update({ waiting: "for an answer of Grafana" }), PATIENCE);
    return call.finally(() => clearTimeout(timer));
  }

  #update(changes: Conditions): void {
    if (!this.#closed && this.#notices.update(changes)) {
      this.#throttle.request();
    }
  }

  #drawFrame(): void {
    const found = this.#notices.collect(this.#trim(), this.#limit);
    this.#draw({ frame: this.#frame, columns: this.#buffer.copy(), ...found });
  }

  /** Remove rows that the panel does not draw. Returns the left edge of its range. */
  #trim(): number {
    const from = this.#loader.from();
    this.#notices.cut = this.#buffer.trim(from, this.#limit) ?? this.#notices.cut;
    return from;
  }

  #queueHasOtherEpoch(): boolean {
    const last = this.#queue.at(-1);
    return !!last && last.cursor.epoch !== this.#epoch;
  }

  async #sleep(ms: number): Promise<void> {
    await this.#pause.sleep(ms);
    this.#throwIfClosed();
  }

  #throwIfClosed(): void {
    if (this.#closed) {
      throw CLOSED;
    }
  }
}
