/**
 * A panel: it runs queries, keeps packets by their keys as Grafana's query runner does, draws them, and
 * records every frame. Rows have the number `n` within their `log`; a record stores the runs of
 * consecutive numbers, so that it covers every row.
 */

import { type DataFrame, rangeUtil } from "@grafana/data";
import type { Observable, Subscription } from "rxjs";
import uPlot from "uplot";

export interface Options {
  targets: any[];
  raw: { from: any; to: any };
  points?: number;
  requestId?: string;
  draw?: string;
}

interface Run {
  log: string;
  first: number;
  last: number;
}

export interface Record {
  at: number;
  from: number;
  state: string;
  error?: string;
  notices: string[];
  frames: number;
  rows: number;
  names: string[];
  titles: string[];
  runs: Run[];
  annotations: string[];
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
    this.latest = {
      at: Date.now(),
      from: rangeUtil.convertRawToRange(this.options.raw, "browser").from.valueOf(),
      state: failed ? "Error" : (packet.state ?? "Done"),
      error: failed?.error.message,
      notices: frames.flatMap((frame) => (frame.meta?.notices ?? []).map(({ severity, text }) => `${severity}: ${text}`)),
      frames: frames.length,
      rows: frames.reduce((sum, frame) => sum + frame.length, 0),
      names: frames.flatMap((frame) => frame.fields.map(({ name }) => name)),
      titles: frames.flatMap((frame) => frame.fields.map(({ config }) => config.displayNameFromDS ?? "")),
      runs: frames.flatMap(runsOf),
      annotations: annotations.flatMap((frame) => column(frame, "text")),
    };
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

/** Grafana separates such frames from the others, and charts draw them as annotations. */
function isAnnotations(frame: DataFrame): boolean {
  return frame.meta?.dataTopic === "annotations";
}

function column(frame: DataFrame, name: string): any[] {
  return valuesOf(frame.fields.find((field) => field.name === name));
}

function isCloneable(value: unknown): boolean {
  try {
    structuredClone(value);
    return true;
  } catch {
    return false;
  }
}

function valuesOf(field: any): any[] {
  return Array.isArray(field.values) ? field.values : field.values.toArray();
}

function runsOf(frame: DataFrame): Run[] {
  const n = frame.fields.find(({ name }) => name === "n");
  const log = frame.fields.find(({ name }) => name === "log");
  if (!n || !log) {
    return [];
  }
  const numbers = valuesOf(n);
  const logs = valuesOf(log);
  const found: Run[] = [];
  numbers.forEach((number, row) => {
    const run = found[found.length - 1];
    if (run && run.log === logs[row] && number === run.last + 1) {
      run.last = number;
    } else {
      found.push({ log: logs[row], first: number, last: number });
    }
  });
  return found;
}
