/**
 * One exact query of a panel: it loads the history, then follows each frame until the panel leaves.
 *
 * When it leaves, the followers go on for a while without drawing. A panel that comes back, as when a
 * viewer switches to another tab of a dashboard and back, draws their rows and asks nothing. A refresh
 * leaves and comes back at once: it loads the history again.
 */

import { type DataFrame, type DataQueryRequest, type DataQueryResponse, LoadingState } from "@grafana/data";
import { Observable, type Subscriber, firstValueFrom } from "rxjs";

import { currentRange } from "../range";
import { keyOf, messageOf } from "../responses";
import type { StreamQuery } from "../types";
import { Failure, Follower, type History } from "./follower";
import { copyOf, cursorOf, framesOf, historyOf, sameColumns } from "./frames";
import { subscriptions } from "./live";
import { type Cursor, type Page, isPacket } from "./packets";
import { Backoff, Sleeper, now } from "./timing";

type Request = DataQueryRequest<StreamQuery>;

/** The calls to the plugin's backend. */
export interface Backend {
  query(request: Request): Observable<DataQueryResponse>;
  rows(path: string, after: Cursor): Promise<unknown>;
}

const UNREACHABLE = "Grafana cannot be reached";
const DEFAULT_POINTS = 1_000; // the backend's default for a panel without maxDataPoints
export const KEEP = 30_000; // ms that a query goes on after its panel has left
export const REFRESH = 300; // ms: a panel that comes back sooner is refreshed

/** The queries whose panels have left, and when, by what identifies them. */
const parked = new Map<string, { query: ExactQuery; at: number }>();

/** `target` is the query with its variables replaced; `uid` is the data source's. */
export function runExactQuery(
  backend: Backend,
  request: Request,
  target: StreamQuery,
  uid: string
): Observable<DataQueryResponse> {
  const { range, timezone, maxDataPoints, panelId } = request;
  const place = JSON.stringify([uid, panelId, target.refId]);
  const identity = place + JSON.stringify([target, range.raw, timezone, maxDataPoints]);
  return new Observable((subscriber) => {
    const query = takeParked(place, identity) ?? new ExactQuery(backend, request, target);
    query.attach(subscriber);
    return () => query.park(identity);
  });
}

/**
 * A query that has gone on while its panel was away. Those that have left just now are refreshed, or have
 * another range: they end, and the new query begins with their rows.
 */
function takeParked(place: string, identity: string): ExactQuery | undefined {
  for (const [key, { query, at }] of parked) {
    if (key.startsWith(place) && now() - at < REFRESH) {
      query.close();
    }
  }
  const found = parked.get(identity)?.query;
  found?.unpark();
  return found;
}

class ExactQuery {
  readonly #backend: Backend;
  readonly #request: Request;
  readonly #target: StreamQuery;
  #subscriber?: Subscriber<DataQueryResponse>; // undefined while the panel is away
  readonly #followers: Array<Follower<DataFrame>> = [];
  #fixed: DataFrame[] = []; // frames that are not followed
  readonly #pause = new Sleeper();
  #closed = false;
  #loads = 0;
  #identity = ""; // while it is parked
  #timer?: ReturnType<typeof setTimeout>;

  constructor(backend: Backend, request: Request, target: StreamQuery) {
    this.#backend = backend;
    this.#request = request;
    this.#target = target;
    document.addEventListener("visibilitychange", this.#onVisibilityChange);
  }

  /** Load the history, with retries. Shows each error; a permanent one ends the query. */
  async #open(): Promise<void> {
    const backoff = new Backoff(1_000, 30_000);
    while (!this.#closed) {
      try {
        const frames = await this.#load();
        return this.#closed ? undefined : this.#begin(frames);
      } catch (error) {
        this.#showError(error);
        if (error instanceof Failure && error.permanent) {
          return this.#subscriber?.complete();
        }
      }
      await this.#pause.sleep(backoff.next());
    }
  }

  /** Send the frames to a panel; one that has come back gets the rows that are there. */
  attach(subscriber: Subscriber<DataQueryResponse>): void {
    this.#subscriber = subscriber;
    if (this.#followers.length > 0) {
      // not at once: Grafana's `runRequest` subscribes again after a frame during the first subscription
      queueMicrotask(() => this.#subscriber === subscriber && this.#drawAll());
    } else {
      void this.#open();
    }
  }

  /** The panel has left. */
  park(identity: string): void {
    this.#subscriber = undefined;
    parked.get(identity)?.query.close();
    if (this.#followers.length > 0) {
      this.#timer = setTimeout(() => this.close(), KEEP);
      this.#identity = identity;
      parked.set(identity, { query: this, at: now() });
    } else {
      this.close();
    }
  }

  unpark(): void {
    clearTimeout(this.#timer);
    parked.delete(this.#identity);
  }

  close(): void {
    this.unpark();
    this.#closed = true;
    document.removeEventListener("visibilitychange", this.#onVisibilityChange);
    this.#pause.wake();
    this.#followers.forEach((follower) => follower.close());
  }

  #begin(frames: DataFrame[]): void {
    const followed = frames.filter(cursorOf);
    this.#fixed = frames.filter((frame) => !cursorOf(frame)).map(copyOf);
    if (!followed.length) {
      this.#emit(this.#fixed, keyOf(this.#target.refId, 0), LoadingState.Done);
      this.#subscriber?.complete();
    } else {
      this.#emitFixed();
    }
    followed.forEach((frame, index) => this.#follow(frame, index));
  }

  #drawAll(): void {
    this.#emitFixed();
    this.#followers.forEach((follower) => follower.redraw());
  }

  /** Copies, because Grafana empties the arrays of frames that it no longer draws. */
  #emitFixed(): void {
    if (this.#fixed.length > 0) {
      this.#emit(this.#fixed.map(copyOf), keyOf(this.#target.refId, "fixed"));
    }
  }

  #emit(data: DataFrame[], key: string, state = LoadingState.Streaming): void {
    this.#subscriber?.next({ data, key, state });
  }

  #follow(first: DataFrame, index: number): void {
    const key = keyOf(this.#target.refId, index);
    const pick = (frames: DataFrame[]): History<DataFrame> => {
      const frame = frames.filter(cursorOf)[index];
      if (!frame) {
        throw new Failure("the answer has fewer frames than before");
      }
      return historyOf(frame, cursorOf(frame)!);
    };
    const loader = {
      load: async () => pick(await this.#load()),
      rows: (channel: string, after: Cursor) => this.#rows(channel, after),
      sameColumns,
      from: () => currentRange(this.#request).from.valueOf(),
      limit: this.#request.maxDataPoints ?? DEFAULT_POINTS,
      hidden: () => document.hidden || !this.#subscriber,
      key: this.#request.panelId + key,
    };
    const follower = new Follower(loader, subscriptions, (drawing) => this.#emit(framesOf(drawing), key));
    this.#followers.push(follower);
    follower.run(historyOf(first, cursorOf(first)!)).catch((error) => this.#showError(error, key));
  }

  /** The history of the current range. A new id each time: Grafana cancels a request with the same. */
  async #load(): Promise<DataFrame[]> {
    const requestId = `${this.#request.requestId}-${this.#loads++}`;
    const request = { ...this.#request, requestId, range: currentRange(this.#request) };
    const { data, error } = await firstValueFrom(this.#backend.query(request));
    if (error) {
      throw new Failure(error.message ?? error.data?.message ?? "the query failed", isPermanent(error.status));
    }
    if (!data.length) {
      // Grafana's class returns no frames and no error when its server cannot be reached
      throw new Failure(UNREACHABLE);
    }
    return data as DataFrame[];
  }

  async #rows(channel: string, after: Cursor): Promise<Page> {
    let page: unknown;
    try {
      page = await this.#backend.rows(channel.split("/").slice(2).join("/"), after);
    } catch (error) {
      const { status, statusText, data } = error as { status?: number; statusText?: string; data?: ErrorBody };
      const message = data?.message || data?.error || statusText || String(error);
      throw new Failure(status ? message : UNREACHABLE, isPermanent(status));
    }
    if (!isPacket(page)) {
      throw new Failure(`expected rows, got ${JSON.stringify(page)?.slice(0, 80)}`);
    }
    return page;
  }

  /** Shown under the key of the first frame, which replaces it later. */
  #showError(error: unknown, key = keyOf(this.#target.refId, 0)): void {
    const { refId } = this.#target;
    this.#subscriber?.next({ data: [], key, state: LoadingState.Error, error: { message: messageOf(error), refId } });
  }
  readonly #onVisibilityChange = (): void => this.#followers.forEach((follower) => follower.becameVisible());
}

interface ErrorBody {
  message?: string;
  error?: string;
}

/** Whether the query or a permission is the cause, so that a retry cannot help. */
const isPermanent = (status: number | undefined): boolean =>
  status! >= 400 && status! < 500 && status !== 408 && status !== 429;
