/**
 * Grafana Live in one tab, over Centrifuge's client, with the behaviour of Grafana's frontend: one
 * channel object for each address, kept for 250 ms after its last subscriber.
 *
 * - A subscriber of an open channel gets its state, with the last message that had a schema.
 * - The initial data is the message of a status event, again after each reconnect.
 * - `forgetsKey`: frames of dashboards have no key that keeps their arrays.
 * - `cannotReopen`: a closed channel cannot be opened again in this tab, as in some builds of 9.4.
 */

import { Centrifuge, type Subscription } from "centrifuge";
import { Observable, Subject } from "rxjs";
import type { LiveChannelAddress } from "@grafana/data";

import { DataStream } from "./streams";

type Event = { type: string; state?: string; message?: any; error?: any };

export const behaviour = { cannotReopen: false, forgetsKey: false };

let connection: Centrifuge | undefined;

function connected(): Centrifuge {
  if (!connection) {
    connection = new Centrifuge(`${location.origin.replace(/^http/, "ws")}/api/live/ws`, { timeout: 30_000 });
    connection.connect();
  }
  return connection;
}

class Channel {
  readonly events = new Subject<Event>();
  private status: Event = { type: "status", state: "pending" };
  private schema?: any;
  private subscription?: Subscription;

  constructor(
    readonly id: string,
    private readonly onClose: () => void
  ) {
    queueMicrotask(() => this.open());
  }

  stream(): Observable<Event> {
    return new Observable((subscriber) => {
      subscriber.next({ ...this.status, message: this.schema });
      const inner = this.events.subscribe(subscriber);
      return () => {
        inner.unsubscribe();
        setTimeout(() => this.events.observed || this.close(), 250);
      };
    });
  }

  private open(): void {
    const centrifuge = connected();
    try {
      this.subscription = centrifuge.newSubscription(this.id);
    } catch (error) {
      this.setStatus({ state: "invalid", error });
      this.close();
      return;
    }
    this.subscription.on("subscribed", ({ data }) => this.setStatus({ state: "connected" }, data));
    this.subscription.on("subscribing", () => this.setStatus({ state: "connecting" }));
    this.subscription.on("error", ({ error }) => this.setStatus({ error }));
    this.subscription.on("publication", ({ data }) => {
      this.remember(data);
      this.events.next({ type: "message", message: data });
    });
    this.subscription.subscribe();
  }

  private setStatus(changes: Partial<Event>, message?: any): void {
    this.status = { ...this.status, error: undefined, ...changes };
    this.remember(message);
    this.events.next({ ...this.status, message });
  }

  private remember(message: any): void {
    if (message?.schema) {
      this.schema = message;
    }
  }

  private close(): void {
    this.subscription?.unsubscribe();
    this.subscription?.removeAllListeners();
    if (this.subscription && !behaviour.cannotReopen) {
      connected().removeSubscription(this.subscription);
    }
    this.subscription = undefined;
    this.events.complete();
    this.onClose();
  }
}

const channels = new Map<string, Channel>();
const streams = new Map<string, DataStream>();

function channelOf(address: LiveChannelAddress): Channel {
  const { scope, path } = address;
  const name = (address as any).stream ?? (address as any).namespace;
  const id = `1/${scope}/${name}/${path}`;
  let channel = channels.get(id);
  if (!channel) {
    channel = new Channel(id, () => channels.delete(id));
    channels.set(id, channel);
  }
  return channel;
}

export const liveSrv: any = {
  getStream: (address: LiveChannelAddress) => new Observable((subscriber) => channelOf(address).stream().subscribe(subscriber)),
  getDataStream: (options: any) => {
    const { id } = channelOf(options.addr);
    let stream = streams.get(id);
    if (!stream) {
      stream = new DataStream(channelOf(options.addr).stream(), () => streams.delete(id));
      streams.set(id, stream);
    }
    return stream.get(options);
  },
};
