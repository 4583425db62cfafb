/** One exact query of a panel as the panel sees it: a history, then frames for as long as it looks. */

import { type DataFrame, type DataQueryRequest, type DataQueryResponse, LoadingState } from "@grafana/data";
import { Observable, type Subscriber, firstValueFrom } from "rxjs";

import { Failure, Follower, type History } from "../seam/follower";
import { type Page, isPacket } from "../seam/packets";
import { Backoff, Sleeper } from "../seam/waits";
import type { StreamQuery } from "../types";
import { frameOf, historyOf, seamOf } from "./frames";
import { taps } from "./live";
import { rangeNow } from "./range";

type Request = DataQueryRequest<StreamQuery>;

/** What is asked of the backend. */
export interface Ask {
  query(request: Request): Observable<DataQueryResponse>;
  rows(path: string, after: number): Promise<unknown>;
}

const UNREACHABLE = "Grafana cannot be reached";
const UNSET_POINTS = 1_000; // what the backend takes where a panel does not say how many it draws

/** Nothing yet, at the place of the query's frame. */
export function placeOf(target: StreamQuery): DataQueryResponse {
  return { data: [], key: `${keyOf(target)}-0`, state: LoadingState.Loading };
}

function keyOf(target: StreamQuery): string {
  return `exact-${target.refId}`;
}

export function exactly(ask: Ask, request: Request, target: StreamQuery): Observable<DataQueryResponse> {
  return new Observable((subscriber) => {
    const panel = new Panel(ask, request, target, subscriber);
    void panel.open();
    return () => panel.close();
  });
}

class Panel {
  readonly #ask: Ask;
  readonly #request: Request;
  readonly #target: StreamQuery;
  readonly #subscriber: Subscriber<DataQueryResponse>;
  readonly #followers: Array<Follower<DataFrame>> = [];
  readonly #pause = new Sleeper();
  readonly #key: string;
  #closed = false;
  #loads = 0;

  constructor(ask: Ask, request: Request, target: StreamQuery, subscriber: Subscriber<DataQueryResponse>) {
    this.#ask = ask;
    this.#request = request;
    this.#target = target;
    this.#subscriber = subscriber;
    this.#key = keyOf(target);
    document.addEventListener("visibilitychange", this.#shown);
  }

  /** Loads until there is a history. What went wrong is shown meanwhile, or for good. */
  async open(): Promise<void> {
    const backoff = new Backoff(1_000, 30_000);
    while (!this.#closed) {
      try {
        const frames = await this.#load();
        return this.#closed ? undefined : this.#begin(frames);
      } catch (error) {
        this.#fail(error);
        if (error instanceof Failure && error.lasting) {
          return this.#subscriber.complete();
        }
      }
      await this.#pause.sleep(backoff.next());
    }
  }

  close(): void {
    this.#closed = true;
    document.removeEventListener("visibilitychange", this.#shown);
    this.#pause.wake();
    this.#followers.forEach((follower) => follower.close());
  }

  #begin(frames: DataFrame[]): void {
    const fixed = frames.filter((frame) => !seamOf(frame));
    const moving = frames.filter(seamOf);
    if (fixed.length > 0 || moving.length === 0) {
      const [key, state] =
        moving.length > 0
          ? [`${this.#key}-fixed`, LoadingState.Streaming]
          : [`${this.#key}-0`, LoadingState.Done];
      this.#subscriber.next({ data: fixed, key, state });
    }
    if (moving.length === 0) {
      this.#subscriber.complete();
    }
    moving.forEach((frame, place) => this.#follow(frame, place));
  }

  #follow(first: DataFrame, place: number): void {
    const key = `${this.#key}-${place}`;
    const pick = (frames: DataFrame[]): History<DataFrame> => {
      const frame = frames.filter(seamOf)[place];
      if (!frame) {
        throw new Failure("the answer has fewer frames than before");
      }
      return historyOf(frame, seamOf(frame)!);
    };
    const source = {
      load: async () => pick(await this.#load()),
      rows: (channel: string, after: number) => this.#rows(channel, after),
      from: () => rangeNow(this.#request).from.valueOf(),
      points: this.#request.maxDataPoints ?? UNSET_POINTS,
      hidden: () => document.visibilityState === "hidden",
    };
    const follower = new Follower(source, taps, (emission) => {
      this.#subscriber.next({ data: [frameOf(emission)], key, state: LoadingState.Streaming });
    });
    this.#followers.push(follower);
    follower.run(historyOf(first, seamOf(first)!)).catch((error) => this.#fail(error, key));
  }

  /** The history of the range as it is now. An own id: Grafana ends a request of the same one. */
  async #load(): Promise<DataFrame[]> {
    const requestId = `${this.#request.requestId}-${this.#loads++}`;
    const asked = { ...this.#request, requestId, range: rangeNow(this.#request) };
    const { data, error } = await firstValueFrom(this.#ask.query(asked));
    if (error) {
      throw new Failure(error.message ?? error.data?.message ?? "the query failed", isLasting(error.status));
    }
    if (data.length === 0) {
      // Grafana's class answers with nothing, and no error, when its server cannot be reached
      throw new Failure(UNREACHABLE);
    }
    return data as DataFrame[];
  }

  async #rows(channel: string, after: number): Promise<Page> {
    let page: unknown;
    try {
      page = await this.#ask.rows(channel.split("/").slice(2).join("/"), after);
    } catch (error) {
      const { status, statusText, data } = error as { status?: number; statusText?: string; data?: Said };
      const said = data?.message || data?.error || statusText || String(error);
      throw new Failure(status ? said : UNREACHABLE, isLasting(status));
    }
    if (!isPacket(page)) {
      throw new Failure(`no rows in ${JSON.stringify(page)?.slice(0, 80)}`);
    }
    return page;
  }

  /** Shown in the place of the first frame, which takes it back. */
  #fail(error: unknown, key = `${this.#key}-0`): void {
    const message = error instanceof Error ? error.message : String(error);
    const { refId } = this.#target;
    this.#subscriber.next({ data: [], key, state: LoadingState.Error, error: { message, refId } });
  }

  readonly #shown = (): void => this.#followers.forEach((follower) => follower.shown());
}

interface Said {
  message?: string;
  error?: string;
}

/** Whether the query or its permission is at fault, and not the way there. */
function isLasting(status: number | undefined): boolean {
  return status !== undefined && status >= 400 && status < 500 && status !== 408 && status !== 429;
}
