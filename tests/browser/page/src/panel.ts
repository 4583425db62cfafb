/** A panel: it runs queries, keeps packets by their keys as Grafana's query runner does, draws them, and
 * records every frame. */

import { type DataFrame, rangeUtil } from "@grafana/data";
import type { Observable, Subscription } from "rxjs";
import uPlot from "uplot";

import { type Record, column, recordOf, valuesOf } from "./records";
import { isAnnotations } from "./requests";

export interface Options {
  targets: any[];
  raw: { from: any; to: any };
  points?: number;
  requestId?: string;
  draw?: string;
}

let requests = 0;

export class Panel {
  records: Record[] = [];
  latest?: Record;
  private packets = new Map<string, any>();
  private subscription?: Subscription;
  private completed = false;
  private readonly element = document.createElement("div");
  private plot?: uPlot;
  private annotations: DataFrame[] = [];

  constructor(
    readonly name: string,
    private readonly ask: (request: any) => Observable<any>,
    private options: Options
  ) {
    this.element.className = "panel";
    document.body.append(this.element);
    this.run();
  }

  /** Refresh or change the query: the previous one is unsubscribed before the new one is answered. */
  run(changed: Partial<Options> = {}): void {
    this.options = { ...this.options, ...changed };
    const { targets, raw, points = 30_000, requestId = `Q${requests++}` } = this.options;
    this.subscription?.unsubscribe();
    this.packets = new Map();
    this.completed = false;
    const range = rangeUtil.convertRawToRange(raw, "browser");
    const request = { requestId, targets, range, rangeRaw: raw, timezone: "browser", maxDataPoints: points, interval: "1s", intervalMs: 1000, scopedVars: {}, app: "dashboard", startTime: Date.now() };
    this.subscription = this.ask(request).subscribe({
      next: (packet) => this.take(packet),
      error: (error) => this.take({ key: "A", data: [], state: "Error", error }),
      complete: () => (this.completed = true),
    });
  }

  close(): void {
    this.subscription?.unsubscribe();
    this.element.remove();
  }

  summary() {
    return { latest: this.latest, completed: this.completed };
  }

  /** Draw the regions of annotations. */
  private shade({ ctx, bbox, valToPos }: uPlot): void {
    for (const frame of this.annotations) {
      const ends = column(frame, "timeEnd");
      column(frame, "time").forEach((from, row) => {
        const left = Math.max(bbox.left, valToPos(from / 1000, "x", true));
        const right = Math.max(left + 1, valToPos(ends[row] / 1000, "x", true));
        ctx.fillStyle = "#ff983040";
        ctx.fillRect(left, bbox.top, right - left, bbox.height);
      });
    }
  }

  /** The refIds of the frames, and the columns whose values are of another realm: those cannot be cloned. */
  inspect() {
    const frames: DataFrame[] = [...this.packets.values()].flatMap((each) => each.data);
    const foreign = frames.flatMap(({ fields }) => fields.filter((field) => !isCloneable(valuesOf(field))));
    return { refIds: frames.map(({ refId }) => refId), foreign: foreign.map(({ name }) => name) };
  }

  private take(packet: any): void {
    this.packets.set(packet.key ?? packet.data[0]?.refId ?? "A", packet);
    const packets = [...this.packets.values()];
    const all: DataFrame[] = packets.flatMap((each) => each.data);
    const frames = all.filter((frame) => !isAnnotations(frame));
    const annotations = all.filter(isAnnotations);
    const failed = packets.find((each) => each.error);
    this.latest = recordOf(frames, annotations, this.options.raw, failed ? "Error" : (packet.state ?? "Done"), failed?.error);
    this.records.push(this.latest);
    this.draw(frames, annotations);
  }

  private draw(frames: DataFrame[], annotations: DataFrame[]): void {
    const wanted = this.options.draw;
    if (!wanted) {
      return;
    }
    const time = frames[0]?.fields.find(({ type }) => type === "time");
    const value = frames[0]?.fields.find(({ name }) => name === wanted);
    const data: any = [time ? valuesOf(time).map((ms: any) => ms / 1000) : [], value ? valuesOf(value) : []];
    if (!this.plot) {
      this.element.innerHTML = `<h2>${this.name}</h2><div class="notices"></div><div class="plot"></div>`;
      const axis = { stroke: "#ccccdc", grid: { stroke: "#2c3235" } };
      const series = [{}, { stroke: "#73bf69", width: 1 }];
      this.plot = new uPlot({ width: 620, height: 180, series, axes: [axis, axis], legend: { show: false }, hooks: { drawClear: [(plot) => this.shade(plot)] } }, data, this.element.querySelector<HTMLElement>(".plot")!);
    }
    this.annotations = annotations;
    this.plot.setData(data);
    const notices = this.element.querySelector(".notices")!;
    notices.replaceChildren(
      ...this.latest!.notices.map((text) => {
        const [severity] = text.split(":");
        const line = document.createElement("div");
        line.className = `notice ${severity}`;
        line.textContent = text.slice(severity.length + 2);
        return line;
      })
    );
  }
}

function isCloneable(value: unknown): boolean {
  try {
    structuredClone(value);
    return true;
  } catch {
    return false;
  }
}
