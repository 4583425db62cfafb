/**
 * The data stream of stock panels: one of Grafana's StreamingDataFrames for all panels of a channel in
 * a tab, kept for 5 s after the last panel.
 *
 * A panel's history is added only while the last packet had no rows.
 */

import * as data from "@grafana/data";
import { Observable, Subject, type Subscription } from "rxjs";

// 9.4 does not export them, so it has no stock panels here
const { StreamingDataFrame, StreamingFrameAction } = data as any;

let counter = 0;

export class DataStream {
  private readonly buffer = StreamingDataFrame.empty({ maxLength: 100, maxDelta: Infinity, action: StreamingFrameAction.Append });
  private readonly news = new Subject<unknown>();
  private readonly inner: Subscription;
  private timer?: ReturnType<typeof setTimeout>;

  constructor(
    events: Observable<any>,
    private readonly gone: () => void
  ) {
    this.inner = events.subscribe({
      next: (event) => {
        const usable = event.type === "message" || event.state === "connected" || event.state === "pending";
        if (usable && event.message) {
          this.push(event.message);
        }
      },
      complete: () => this.close(),
    });
  }

  get(options: any): Observable<any> {
    return new Observable((subscriber) => {
      clearTimeout(this.timer);
      const buffer = { maxLength: 100, maxDelta: Infinity, action: StreamingFrameAction.Append, ...options.buffer };
      if (this.buffer.needsResizing(buffer)) {
        this.buffer.resize(buffer);
      }
      if (!this.buffer.hasAtLeastOnePacket() && options.frame) {
        this.buffer.push(options.frame);
      }
      const key = options.key ?? `xstr/${counter++}`;
      const send = () => subscriber.next({ key, state: "Streaming", data: [this.buffer] });
      send();
      const inner = this.news.subscribe({ next: send, complete: () => subscriber.complete() });
      return () => {
        inner.unsubscribe();
        if (!this.news.observed) {
          this.timer = setTimeout(() => this.news.observed || this.close(), 5_000);
        }
      };
    });
  }

  private push(message: any): void {
    this.buffer.push(message);
    this.news.next(undefined);
  }

  private close(): void {
    this.inner.unsubscribe();
    this.news.complete();
    this.gone();
  }
}
