/**
 * One query that follows its channel exactly: no row missing, none twice, none out of order, in any
 * frame that it draws.
 *
 *     history ──▶ ┌───────┐      a packet that continues the table is appended (F3, F4)
 *     packets ──▶ │ table │ ──▶  frames
 *     pages   ──▶ └───────┘      before one that does not, the rows between are fetched (F5)
 *
 * F1 to F10 are the browser's rules of the exact protocol, see docs/exact.md. Packets wait in a
 * queue, so that one thing is done at a time; nothing is ever drawn across a hole.
 */

import { Gate } from "./gate";
import { type News, Notices } from "./notices";
import { type Column, type Packet, type Page, type State, columnsOf, firstAbove } from "./packets";
import { Table } from "./table";
import type { Tap, Taps } from "./tap";
import { Backoff, Reloads, Sleeper, now, within } from "./waits";

const POLL = 2_000; // ms between two looks whether the socket is of use (F8)
const STASH = 500; // packets that wait; of more the oldest go, and are fetched (F5)
const CALL = 30_000; // ms that a call may take before it is given up
const PASSING = [500, 4_000] as const; // ms between calls that fail: first and longest wait (F6)
const LASTING = [2_000, 15_000] as const; // the same where asking again will hardly help
const LATE = [100, 2_000] as const; // the same for a server that has not read so far yet (F6)

/** The answer of an exact query. `frame` is whatever the caller makes its frames from. */
export interface History<F> {
  frame: F;
  columns: Column[];
  /** Index of the column with the rows' time in Unix ms; -1 without one. */
  time: number;
  seam: { channel: string; epoch: string; last: number };
}

/** A call that failed; `lasting` where asking again will hardly help. */
export class Failure extends Error {
  constructor(message: string, readonly lasting = false) {
    super(message);
  }
}

export interface Source<F> {
  /** The history of the range as it is at this moment. */
  load(): Promise<History<F>>;
  /** The resource `seam/rows`. */
  rows(channel: string, after: number): Promise<Page>;
  /** Left edge of the panel's range now, in Unix ms. */
  from(): number;
  /** Most rows that are drawn. */
  points: number;
  /** Nobody can see the panel. */
  hidden(): boolean;
}

export interface Emission<F> {
  frame: F;
  columns: Column[];
  notices: State[];
}

const CLOSED = Symbol("closed");

export class Follower<F> {
  readonly #source: Source<F>;
  readonly #taps: Taps;
  readonly #draw: (emission: Emission<F>) => void;
  #table!: Table;
  #frame!: F;
  #epoch = "";
  #cursor = -1;
  #tap?: Tap;
  #stash: Packet[] = [];
  #foreign = false; // the socket tells of another epoch than the history
  #gone = false; // rows behind the cursor are gone, and it is too early to load again
  #joined = false; // something has continued the history since it was loaded
  #misses = 0; // looks in a row that found no live socket
  #pollAt = 0;
  #closed = false;
  readonly #notices = new Notices();
  readonly #reloads = new Reloads();
  readonly #idle = new Sleeper();
  readonly #pause = new Sleeper();
  readonly #gate: Gate;

  constructor(source: Source<F>, taps: Taps, draw: (emission: Emission<F>) => void) {
    this.#source = source;
    this.#taps = taps;
    this.#draw = draw;
    this.#gate = new Gate(() => this.#emit(), source.hidden);
  }

  /** Begins with a history that was just loaded (F1), and goes on until it is closed. */
  async run(history: History<F>): Promise<void> {
    try {
      this.#stopIfClosed();
      this.#begin(history);
      for (;;) {
        await this.#turn();
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
    this.#gate.close();
    this.#tap?.leave(this);
    this.#tap = undefined;
    this.#idle.wake();
    this.#pause.wake();
  }

  /** A packet of the tap's; those that wait too long make room for newer ones (F5). */
  offer(packet: Packet): void {
    this.#stash.push(packet);
    if (this.#stash.length > STASH) {
      this.#stash.shift();
    }
    this.#idle.wake();
  }

  /** How the stream is doing: told even while rows are waited for. */
  hear(plugin: State | null): void {
    this.#say({ plugin });
  }

  /** The panel is seen again. */
  shown(): void {
    this.#gate.shown();
    this.#pollAt = now();
    this.#idle.wake();
  }

  #begin(history: History<F>): void {
    const from = this.#source.from();
    const former = this.#table;
    const full = (history.columns[0]?.length ?? 0) >= this.#source.points;
    this.#frame = history.frame;
    this.#table = new Table(history.columns, history.time);
    this.#epoch = history.seam.epoch;
    this.#cursor = history.seam.last;
    this.#foreign = this.#gone = this.#joined = false;
    this.#pollAt = now() + POLL;
    this.#notices.cut = full ? this.#table.timeOf(0) : undefined;
    if (former && !full) {
      this.#notices.lost = lostBetween(former, this.#table, from) ?? this.#notices.lost;
    }
    this.#gate.ask(true);
    this.#follow(history.seam.channel);
  }

  #follow(channel: string): void {
    const tap = this.#taps.of(channel);
    if (tap !== this.#tap) {
      this.#tap?.leave(this);
      this.#tap = tap;
      tap.join(this);
    }
  }

  async #turn(): Promise<void> {
    if (this.#stash.length === 0) {
      await this.#idle.sleep(this.#pollAt - now());
      this.#stopIfClosed();
    }
    if (now() >= this.#pollAt) {
      this.#pollAt = now() + POLL;
      await this.#poll();
    } else if (this.#stash.length > 0) {
      await this.#take(this.#stash.shift()!);
    }
  }

  /** F8: while the socket is of no use, rows come all the same. */
  async #poll(): Promise<void> {
    const live = this.#tap!.live;
    this.#misses = live ? 0 : this.#misses + 1;
    this.#say({ polling: this.#misses > 1 });
    if (!live || this.#foreign || this.#gone) {
      await this.#fill(this.#cursor);
    }
  }

  async #take(packet: Packet): Promise<void> {
    if (packet.seam.epoch !== this.#epoch) {
      await this.#disagree();
      return;
    }
    this.#foreign = false;
    if (this.#gone) {
      return;
    }
    if (packet.seam.prev > this.#cursor) {
      await this.#fill(packet.seam.prev);
    }
    if (packet.seam.epoch === this.#epoch && packet.seam.prev <= this.#cursor) {
      await this.#append(packet);
    }
  }

  /** F5: the rows behind the cursor, until it is at `wanted`; one call at least. */
  async #fill(wanted: number): Promise<void> {
    const late = new Backoff(...LATE);
    for (;;) {
      const before = this.#cursor;
      const page = await this.#insist(() => this.#source.rows(this.#tap!.channel, before));
      this.hear(page.state ?? null);
      if (page.seam.epoch !== this.#epoch) {
        return this.#disagree();
      }
      if (page.truncated || page.seam.prev > before) {
        return this.#lose(page);
      }
      if (!(await this.#append(page))) {
        return;
      }
      if (page.more && this.#cursor > before) {
        continue;
      }
      if (this.#cursor >= wanted || this.#stashIsForeign()) {
        return;
      }
      await this.#sleep(late.next());
    }
  }

  /** F3 and F4. False when the columns are others, so that it could not be. */
  async #append(packet: Packet): Promise<boolean> {
    this.#joined = true;
    if (packet.seam.last <= this.#cursor) {
      return true;
    }
    const columns = columnsOf(packet);
    if (columns.length > 0 && columns.length !== this.#table.columns.length) {
      await this.#disagree();
      return false;
    }
    this.#table.append(columns, firstAbove(packet, columns, this.#cursor));
    this.#cursor = packet.seam.last;
    if (this.#table.rows > 2 * this.#source.points) {
      this.#trim(); // a hidden tab draws nothing for hours
    }
    this.#gate.ask();
    return true;
  }

  /** F7: load again, at most once, then 2, 4 … 30 s apart; meanwhile poll. */
  async #disagree(): Promise<void> {
    if (this.#reloads.may()) {
      await this.#reload();
    } else {
      this.#foreign = true;
    }
  }

  /** F7: rows behind the cursor are gone from where rows are fetched; the history may have them. */
  async #lose(page: Page): Promise<void> {
    if (!this.#joined) {
      // not even a history of this moment can be continued: go on behind the gap, and say so
      const columns = columnsOf(page);
      const time = new Table(columns, this.#table.time).timeOf(0);
      this.#notices.lost = Number.isNaN(time) ? Date.now() : time;
      this.#cursor = page.seam.prev;
      this.#gate.ask();
      await this.#append(page);
    } else if (this.#reloads.may()) {
      await this.#reload();
    } else {
      this.#gone = true;
    }
  }

  async #reload(): Promise<void> {
    this.#begin(await this.#insist(() => this.#source.load()));
  }

  /** F6: again and again, more and more slowly. */
  async #insist<T>(call: () => Promise<T>): Promise<T> {
    const passing = new Backoff(...PASSING);
    const lasting = new Backoff(...LASTING);
    for (let failures = 1; ; failures++) {
      let wait: number;
      try {
        const answer = await within(CALL, call());
        this.#stopIfClosed();
        this.#say({ failure: undefined });
        return answer;
      } catch (error) {
        this.#stopIfClosed();
        const hardly = error instanceof Failure && error.lasting;
        wait = (hardly ? lasting : passing).next();
        if (hardly || failures > 1) {
          this.#say({ failure: error instanceof Error ? error.message : String(error) });
        }
      }
      await this.#sleep(wait);
    }
  }

  #say(news: News): void {
    if (this.#notices.say(news)) {
      this.#gate.ask();
    }
  }

  /** F10, and the frame goes to the panel. */
  #emit(): void {
    const notices = this.#notices.list(this.#trim(), this.#source.points);
    this.#draw({ frame: this.#frame, columns: this.#table.copy(), notices });
  }

  /** Leaves out what the panel does not draw, and gives the left edge of its range. */
  #trim(): number {
    const from = this.#source.from();
    this.#notices.cut = this.#table.trim(from, this.#source.points) ?? this.#notices.cut;
    return from;
  }

  #stashIsForeign(): boolean {
    const last = this.#stash[this.#stash.length - 1];
    return last !== undefined && last.seam.epoch !== this.#epoch;
  }

  async #sleep(ms: number): Promise<void> {
    await this.#pause.sleep(ms);
    this.#stopIfClosed();
  }

  #stopIfClosed(): void {
    if (this.#closed) {
      throw CLOSED;
    }
  }
}

/** The time of the first row after a gap: rows that were drawn, and that the new history lacks. */
function lostBetween(former: Table, table: Table, from: number): number | undefined {
  const first = table.rows > 0 ? table.timeOf(0) : Date.now();
  for (let row = 0; row < former.rows; row++) {
    const time = former.timeOf(row);
    if (time >= from && time < first) {
      return first;
    }
  }
  return undefined;
}
