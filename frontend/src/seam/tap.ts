/**
 * One raw subscription for each channel and tab, shared by its panels.
 *
 *     Grafana Live ──▶ Tap ──▶ follower, follower …
 *
 * It remembers where the channel stands for who joins later (Grafana hands out only what has a
 * schema), and it stays a while after its last panel: a refresh leaves before it comes again, and
 * some Grafanas cannot open a channel twice in one tab.
 */

import { type Packet, type State, isPacket, placeOf } from "./packets";
import { Backoff, now } from "./waits";

export const LINGER = 10_000; // ms that a tap stays after its last panel
export const SILENCE = 7_000; // ms; in silence the plugin says every 2 s where it stands

/** What a raw subscription tells. */
export interface Listener {
  /** `status`: the connection's state, where the event is of one. */
  event(status: string | undefined, message: unknown): void;
  /** It is over, for whatever reason. */
  ended(): void;
}

/** Opens a raw subscription and gives what ends it; undefined where there are none. */
export type Open = (channel: string, listener: Listener) => (() => void) | undefined;

export interface Member {
  offer(packet: Packet): void;
  /** How the stream is doing; null is well. */
  hear(state: State | null): void;
}

export class Tap {
  readonly #open: Open;
  readonly #gone: () => void;
  readonly #members = new Set<Member>();
  readonly #backoff = new Backoff(3_000, 30_000);
  #connected = false;
  #heard = -Infinity;
  #place?: Packet;
  #state: State | null = null;
  #unsubscribe?: () => void;
  #timer?: ReturnType<typeof setTimeout>;
  #closed = false;

  constructor(readonly channel: string, open: Open, gone: () => void) {
    this.#open = open;
    this.#gone = gone;
  }

  /** Whether the socket can be relied on: it is there, and it speaks. */
  get live(): boolean {
    return this.#connected && now() - this.#heard < SILENCE;
  }

  join(member: Member): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#members.add(member);
    member.hear(this.#state);
    if (this.#place) {
      member.offer(this.#place);
    }
    if (!this.#unsubscribe) {
      this.#subscribe();
    }
  }

  leave(member: Member): void {
    if (this.#members.delete(member) && this.#members.size === 0) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#close(), LINGER);
    }
  }

  #subscribe(): void {
    let over = false;
    const unsubscribe = this.#open(this.channel, {
      event: (status, message) => over || this.#tell(status, message),
      ended: () => {
        if (!over && !this.#closed) {
          over = true;
          this.#reopen();
        }
      },
    });
    this.#unsubscribe = over ? undefined : unsubscribe; // it may have ended while it was opened
  }

  #reopen(): void {
    this.#connected = false;
    this.#unsubscribe = undefined;
    if (this.#members.size > 0) {
      this.#timer = setTimeout(() => this.#subscribe(), this.#backoff.next());
    } else {
      this.#close();
    }
  }

  #tell(status: string | undefined, message: unknown): void {
    this.#heard = now();
    if (status !== undefined) {
      this.#connected = status === "connected";
    }
    const state = stateOf(message, status !== undefined);
    if (state !== undefined) {
      this.#state = state;
      this.#members.forEach((member) => member.hear(state));
    }
    if (isPacket(message)) {
      this.#backoff.reset();
      this.#place = placeOf(message);
      this.#members.forEach((member) => member.offer(message));
    }
  }

  #close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#unsubscribe?.();
    this.#gone();
  }
}

/**
 * What a message says of how the stream is doing; undefined if nothing. In silence the plugin says it
 * each time that it says where it stands, so a place alone says that all is well: also the first one
 * of a new process, which knows nothing of what the former one said.
 */
function stateOf(message: unknown, isAnswer: boolean): State | null | undefined {
  const { state, data } = (message ?? {}) as Partial<Packet>;
  return state === undefined && !isAnswer && !data ? null : state;
}

/** The taps of one tab. */
export class Taps {
  readonly #open: Open;
  readonly #taps = new Map<string, Tap>();

  constructor(open: Open) {
    this.#open = open;
  }

  of(channel: string): Tap {
    let tap = this.#taps.get(channel);
    if (!tap) {
      tap = new Tap(channel, this.#open, () => this.#taps.delete(channel));
      this.#taps.set(channel, tap);
    }
    return tap;
  }
}
