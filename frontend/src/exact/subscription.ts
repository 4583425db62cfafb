/**
 * One raw subscription for each channel and tab, shared by the tab's panels.
 *
 *     Grafana Live ──▶ ChannelSubscription ──▶ subscribers
 *
 * It keeps the last cursor for subscribers that join later, because Grafana repeats only messages
 * that have a schema. It stays open for a while after its last subscriber leaves: a refresh leaves
 * before it joins again, and some versions of Grafana cannot open a channel twice in one tab.
 */

import { type Packet, type Status, heartbeatOf, isPacket } from "./packets";
import { Backoff, now } from "./timing";

export const LINGER = 10_000; // ms that a subscription stays open after its last subscriber
export const SILENCE = 5_000; // ms without a message after which the connection counts as lost; the plugin sends heartbeats every 2 s

/** Receives the events of a raw subscription. */
export interface Listener {
  /** `connection`: the connection's state, if the event reports one. */
  event(connection: string | undefined, message: unknown): void;
  /** The subscription has ended or failed. */
  ended(): void;
}

/** Opens a raw subscription and returns what closes it; undefined if Grafana has none. */
export type Open = (channel: string, listener: Listener) => (() => void) | undefined;

export interface Subscriber {
  receive(packet: Packet): void;
  /** Receives the stream's status; null is healthy. */
  receiveStatus(status: Status | null): void;
}

export class ChannelSubscription {
  /** The newest follower of each panel's frame. */
  readonly followers = new Map<string, unknown>();
  readonly #open: Open;
  readonly #onClose: () => void;
  readonly #subscribers = new Set<Subscriber>();
  readonly #backoff = new Backoff(3_000, 30_000);
  #connected = false;
  #lastEventAt = -Infinity;
  #lastHeartbeat?: Packet;
  #status: Status | null = null;
  #unsubscribe?: () => void;
  #timer?: ReturnType<typeof setTimeout>;
  #closed = false;

  constructor(readonly channel: string, open: Open, onClose: () => void) {
    this.#open = open;
    this.#onClose = onClose;
  }

  /** Whether packets arrive: the socket is connected and not silent. */
  get live(): boolean {
    return this.#connected && now() - this.#lastEventAt < SILENCE;
  }

  join(subscriber: Subscriber): void {
    clearTimeout(this.#timer);
    this.#subscribers.add(subscriber);
    subscriber.receiveStatus(this.#status);
    if (this.#lastHeartbeat) {
      subscriber.receive(this.#lastHeartbeat);
    }
    if (!this.#unsubscribe) {
      this.#subscribe();
    }
  }

  leave(subscriber: Subscriber): void {
    if (this.#subscribers.delete(subscriber) && !this.#subscribers.size) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#close(), LINGER);
    }
  }

  #subscribe(): void {
    let ended = false;
    const unsubscribe = this.#open(this.channel, {
      event: (connection, message) => ended || this.#dispatch(connection, message),
      ended: () => {
        if (!ended && !this.#closed) {
          ended = true;
          this.#reopen();
        }
      },
    });
    this.#unsubscribe = ended ? undefined : unsubscribe; // `ended` may be called by `open` itself
  }

  #reopen(): void {
    this.#connected = false;
    this.#unsubscribe = undefined;
    if (this.#subscribers.size) {
      this.#timer = setTimeout(() => this.#subscribe(), this.#backoff.next());
    } else {
      this.#close();
    }
  }

  #dispatch(connection: string | undefined, message: unknown): void {
    this.#lastEventAt = now();
    if (connection !== undefined) {
      this.#connected = connection === "connected";
    }
    const status = statusOf(message, connection !== undefined);
    if (status !== undefined) {
      this.#status = status;
      this.#subscribers.forEach((subscriber) => subscriber.receiveStatus(status));
    }
    if (isPacket(message)) {
      this.#backoff.reset();
      this.#lastHeartbeat = heartbeatOf(message);
      this.#subscribers.forEach((subscriber) => subscriber.receive(message));
    }
  }

  #close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#unsubscribe?.();
    this.#onClose();
  }
}

/**
 * The status that a message reports; undefined if it reports none. While a stream is not healthy,
 * each heartbeat carries its status. A heartbeat without one therefore means healthy, also the first
 * one of a new plugin process.
 */
function statusOf(message: unknown, isInitial: boolean): Status | null | undefined {
  const { status, data } = (message ?? {}) as Partial<Packet>;
  return status === undefined && !isInitial && !data ? null : status;
}

/** The subscriptions of one tab, by channel. */
export class Subscriptions {
  readonly #open: Open;
  readonly #byChannel = new Map<string, ChannelSubscription>();

  constructor(open: Open) {
    this.#open = open;
  }

  of(channel: string): ChannelSubscription {
    let subscription = this.#byChannel.get(channel);
    if (!subscription) {
      subscription = new ChannelSubscription(channel, this.#open, () => this.#byChannel.delete(channel));
      this.#byChannel.set(channel, subscription);
    }
    return subscription;
  }
}
