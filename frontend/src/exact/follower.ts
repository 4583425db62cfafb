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

import { RowBuffer } from "./buffer";
import { type Conditions, type Notice, Notices } from "./notices";
import { type Column, type Packet, type Page, type Status, columnsOf, firstAfter } from "./packets";
import type { ChannelSubscription, Subscriptions } from "./subscription";
import { DrawThrottle } from "./throttle";
import { Backoff, ReloadLimiter, Sleeper, now, withTimeout } from "./timing";

const POLL_INTERVAL = 2_000; // ms between two checks whether packets arrive
const QUEUE_LIMIT = 500; // queued packets; beyond it the oldest are dropped and fetched later
const CALL_TIMEOUT = 30_000; // ms
const TRANSIENT_BACKOFF = [500, 4_000] as const; // ms between failing calls: first and longest delay
const PERMANENT_BACKOFF = [2_000, 15_000] as const; // ms, after an error that a retry will not cure
const LAG_BACKOFF = [100, 2_000] as const; // ms, for a server that has not read those rows yet

/** The answer of an exact query. `frame` is whatever the caller makes its frames from. */
export interface History<F> {
  frame: F;
  columns: Column[];
  /** Index of the column with the rows' time in Unix ms; -1 without one. */
  time: number;
  cursor: { channel: string; epoch: string; last: number };
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
  rows(channel: string, after: number): Promise<Page>;
  /** Left edge of the panel's current range, in Unix ms. */
  from(): number;
  /** Most rows that are drawn. */
  limit: number;
  /** Whether the panel is invisible. */
  hidden(): boolean;
}

/** What is drawn at once. */
export interface Drawing<F> {
  frame: F;
  columns: Column[];
  notices: Notice[];
}

const CLOSED = Symbol("closed");

export class Follower<F> {
  readonly #loader: HistoryLoader<F>;
  readonly #subscriptions: Subscriptions;
  readonly #draw: (drawing: Drawing<F>) => void;
  #buffer!: RowBuffer;
  #frame!: F;
  #epoch = "";
  #cursor = -1;
  #subscription?: ChannelSubscription;
  #queue: Packet[] = [];
  #epochDiffers = false; // packets have another epoch than the history
  #truncated = false; // rows after the cursor are lost, and a reload is not allowed yet
  #continued = false; // a packet or page has continued the history since it was loaded
  #missedPolls = 0; // checks in a row that found no live socket
  #pollAt = 0;
  #closed = false;
  readonly #notices = new Notices();
  readonly #reloads = new ReloadLimiter();
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
    this.#subscription = undefined;
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

  becameVisible(): void {
    this.#throttle.drawPending();
    this.#pollAt = now();
    this.#idle.wake();
  }

  #begin(history: History<F>): void {
    const from = this.#loader.from();
    const previous = this.#buffer;
    const full = (history.columns[0]?.length ?? 0) >= this.#loader.limit;
    this.#frame = history.frame;
    this.#buffer = new RowBuffer(history.columns, history.time);
    this.#epoch = history.cursor.epoch;
    this.#cursor = history.cursor.last;
    this.#epochDiffers = this.#truncated = this.#continued = false;
    this.#pollAt = now() + POLL_INTERVAL;
    this.#notices.cut = full ? this.#buffer.timeOf(0) : undefined;
    if (previous && !full) {
      this.#notices.gap = gapBetween(previous, this.#buffer, from) ?? this.#notices.gap;
    }
    this.#throttle.request(true);
    this.#subscribe(history.cursor.channel);
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
    if (this.#queue.length === 0) {
      await this.#idle.sleep(this.#pollAt - now());
      this.#throwIfClosed();
    }
    if (now() >= this.#pollAt) {
      this.#pollAt = now() + POLL_INTERVAL;
      await this.#poll();
    } else if (this.#queue.length > 0) {
      await this.#handle(this.#queue.shift()!);
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
    this.#epochDiffers = false;
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
  async #fetch(wanted: number): Promise<void> {
    const backoff = new Backoff(...LAG_BACKOFF);
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
    if (columns.length > 0 && columns.length !== this.#buffer.columns.length) {
      await this.#changeEpoch();
      return false;
    }
    this.#buffer.append(columns, firstAfter(packet, columns, this.#cursor));
    this.#cursor = packet.cursor.last;
    if (this.#buffer.rows > 2 * this.#loader.limit) {
      this.#trim(); // a hidden tab may not draw for hours
    }
    this.#throttle.request();
    return true;
  }

  /** Load the history again as soon as the limiter allows; until then poll. */
  async #changeEpoch(): Promise<void> {
    if (this.#reloads.allow()) {
      await this.#reload();
    } else {
      this.#epochDiffers = true;
    }
  }

  /** Rows after the cursor are gone from the log; the history may still have them. */
  async #handleTruncation(page: Page): Promise<void> {
    if (!this.#continued) {
      // not even a history that was just loaded can be continued: go on after the gap, with a notice
      const columns = columnsOf(page);
      const time = new RowBuffer(columns, this.#buffer.time).timeOf(0);
      this.#notices.gap = Number.isNaN(time) ? Date.now() : time;
      this.#cursor = page.cursor.prev;
      this.#throttle.request();
      await this.#append(page);
    } else if (this.#reloads.allow()) {
      await this.#reload();
    } else {
      this.#truncated = true;
    }
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
        const answer = await withTimeout(CALL_TIMEOUT, call());
        this.#throwIfClosed();
        this.#update({ failure: undefined });
        return answer;
      } catch (error) {
        this.#throwIfClosed();
        const isPermanent = error instanceof Failure && error.permanent;
        delay = (isPermanent ? permanent : transient).next();
        if (isPermanent || failures > 1) {
          this.#update({ failure: error instanceof Error ? error.message : String(error) });
        }
      }
      await this.#sleep(delay);
    }
  }

  #update(changes: Conditions): void {
    if (this.#notices.update(changes)) {
      this.#throttle.request();
    }
  }

  #drawFrame(): void {
    const notices = this.#notices.collect(this.#trim(), this.#loader.limit);
    this.#draw({ frame: this.#frame, columns: this.#buffer.copy(), notices });
  }

  /** Remove rows that the panel does not draw. Returns the left edge of its range. */
  #trim(): number {
    const from = this.#loader.from();
    this.#notices.cut = this.#buffer.trim(from, this.#loader.limit) ?? this.#notices.cut;
    return from;
  }

  #queueHasOtherEpoch(): boolean {
    const last = this.#queue[this.#queue.length - 1];
    return last !== undefined && last.cursor.epoch !== this.#epoch;
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

/** If rows that were drawn are missing in the new history: the time of its first row. */
function gapBetween(previous: RowBuffer, buffer: RowBuffer, from: number): number | undefined {
  const first = buffer.rows > 0 ? buffer.timeOf(0) : Date.now();
  for (let row = 0; row < previous.rows; row++) {
    const time = previous.timeOf(row);
    if (time >= from && time < first) {
      return first;
    }
  }
  return undefined;
}
