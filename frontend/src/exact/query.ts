/** One exact query of a panel: it loads the history, then follows each frame until the panel leaves. */

import { type DataFrame, type DataQueryRequest, type DataQueryResponse, LoadingState } from "@grafana/data";
import { Observable, type Subscriber, firstValueFrom } from "rxjs";

import { currentRange } from "../range";
import { keyOf, messageOf } from "../responses";
import type { StreamQuery } from "../types";
import { Failure, Follower, type History } from "./follower";
import { cursorOf, framesOf, historyOf, sameColumns } from "./frames";
import { subscriptions } from "./live";
import { type Cursor, type Page, isPacket } from "./packets";
import { Backoff, Sleeper } from "./timing";

type Request = DataQueryRequest<StreamQuery>;

/** The calls to the plugin's backend. */
export interface Backend {
  query(request: Request): Observable<DataQueryResponse>;
  rows(path: string, after: Cursor): Promise<unknown>;
}

const UNREACHABLE = "Grafana cannot be reached";
const DEFAULT_POINTS = 1_000; // the backend's default for a panel without maxDataPoints

export function runExactQuery(
  backend: Backend,
  request: Request,
  target: StreamQuery
): Observable<DataQueryResponse> {
  return new Observable((subscriber) => {
    const query = new ExactQuery(backend, request, target, subscriber);
    void query.open();
    return () => query.close();
  });
}

class ExactQuery {
  readonly #backend: Backend;
  readonly #request: Request;
  readonly #target: StreamQuery;
  readonly #subscriber: Subscriber<DataQueryResponse>;
  readonly #followers: Array<Follower<DataFrame>> = [];
  readonly #pause = new Sleeper();
  #closed = false;
  #loads = 0;

  constructor(backend: Backend, request: Request, target: StreamQuery, subscriber: Subscriber<DataQueryResponse>) {
    this.#backend = backend;
    this.#request = request;
    this.#target = target;
    this.#subscriber = subscriber;
    document.addEventListener("visibilitychange", this.#onVisibilityChange);
  }

  /** Load the history, with retries. Shows each error; a permanent one ends the query. */
  async open(): Promise<void> {
    const backoff = new Backoff(1_000, 30_000);
    while (!this.#closed) {
      try {
        const frames = await this.#load();
        return this.#closed ? undefined : this.#begin(frames);
      } catch (error) {
        this.#showError(error);
        if (error instanceof Failure && error.permanent) {
          return this.#subscriber.complete();
        }
      }
      await this.#pause.sleep(backoff.next());
    }
  }

  close(): void {
    this.#closed = true;
    document.removeEventListener("visibilitychange", this.#onVisibilityChange);
    this.#pause.wake();
    this.#followers.forEach((follower) => follower.close());
  }

  #begin(frames: DataFrame[]): void {
    const { refId } = this.#target;
    const fixed = frames.filter((frame) => !cursorOf(frame));
    const followed = frames.filter(cursorOf);
    if (fixed.length > 0 || !followed.length) {
      const [key, state] =
        followed.length
          ? [keyOf(refId, "fixed"), LoadingState.Streaming]
          : [keyOf(refId, 0), LoadingState.Done];
      this.#subscriber.next({ data: fixed, key, state });
    }
    if (!followed.length) {
      this.#subscriber.complete();
    }
    followed.forEach((frame, index) => this.#follow(frame, index));
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
      hidden: () => document.hidden,
      key: this.#request.panelId + key,
    };
    const follower = new Follower(loader, subscriptions, (drawing) => {
      this.#subscriber.next({ data: framesOf(drawing), key, state: LoadingState.Streaming });
    });
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
    this.#subscriber.next({ data: [], key, state: LoadingState.Error, error: { message: messageOf(error), refId } });
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
