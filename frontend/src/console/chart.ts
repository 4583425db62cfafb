// One live chart: uPlot over a panel's rows. Drag to pan, wheel to zoom, double click to go live.

import uPlot from "uplot";
import type { Column, RowBuffer } from "./rowBuffer";
import { formatValue, unitLabel } from "./format";

const COLOURS = [
  "#3274d9",
  "#e0752d",
  "#299c46",
  "#b877d9",
  "#d44a3a",
  "#2f9e9e",
  "#c2a300",
  "#7d6bd6",
  "#d1578f",
  "#708090",
];
const FRAME_BUDGET_MS = 9;
const LATE_FRAME_MS = 20;
const MIN_WIDTH_MS = 10_000;
const BINARY = new Set(["bytes", "binBps"]);
const POWERS_OF_TWO = Array.from({ length: 60 }, (_, n) => 2 ** (n - 4));
// Step of the time axis in ms, its format, and the format where the day, hour or minute changes.
const TIME_FORMATS: uPlot.Axis.Values = [
  [3_600_000, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, null, null, null, null, 1],
  [60_000, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, null, null, null, null, 1],
  [1_000, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1],
  [1, "{ss}.{fff}", "\n{HH}:{mm}", null, null, null, "\n{HH}:{mm}", null, 1],
];

function colour(index: number): string {
  return COLOURS[index % COLOURS.length];
}

// Draws all charts that have changed, as many in each animation frame as the browser can draw in time.
// Those that are left over are drawn first in the next frame.
class DrawScheduler {
  private readonly pending = new Set<Chart>();
  private scheduled = false;
  private previous = 0; // time of the previous frame
  private interval = 16; // ms between two frames, smoothed
  private perFrame = 4; // charts in one frame

  request(chart: Chart): void {
    this.pending.add(chart);
    if (!this.scheduled) {
      this.scheduled = true;
      this.previous = 0;
      requestAnimationFrame(this.drawFrame);
    }
  }

  cancel(chart: Chart): void {
    this.pending.delete(chart);
  }

  private readonly drawFrame = (now: number): void => {
    if (this.previous) {
      this.interval += (Math.min(100, now - this.previous) - this.interval) * 0.1;
      this.perFrame = Math.min(16, Math.max(1, this.perFrame + (this.interval > LATE_FRAME_MS ? -0.5 : 0.1)));
    }
    this.previous = now;
    let left = Math.floor(this.perFrame);
    for (const chart of this.pending) {
      if (left-- <= 0 || performance.now() - now > FRAME_BUDGET_MS) {
        break;
      }
      this.pending.delete(chart);
      chart.draw();
    }
    this.scheduled = this.pending.size > 0;
    if (this.scheduled) {
      requestAnimationFrame(this.drawFrame);
    }
  };
}

export const drawScheduler = new DrawScheduler();

export interface Series {
  name: string;
  colour: string;
  shown: boolean;
  unit: string;
  decimals: number | undefined;
}

export class Chart {
  series: Series[] = [];
  paused = false;
  hover: number | null = null; // the row under the cursor
  onChange: () => void = () => undefined;
  private plot: uPlot | null = null;
  private schemaVersion = -1;
  private range: [number, number] = [0, 1];
  private readonly hidden = new Set<string>();
  private readonly resizer: ResizeObserver;

  constructor(
    private readonly host: HTMLElement,
    private readonly rows: RowBuffer,
    public seconds: number,
  ) {
    this.resizer = new ResizeObserver(() => this.resize());
    this.resizer.observe(host);
    drawScheduler.request(this);
  }

  destroy(): void {
    this.resizer.disconnect();
    drawScheduler.cancel(this);
    this.plot?.destroy();
    this.plot = null;
  }

  pause(paused: boolean): void {
    this.paused = paused;
    drawScheduler.request(this);
    this.onChange();
  }

  toggle(name: string): void {
    if (!this.hidden.delete(name)) {
      this.hidden.add(name);
    }
    const index = this.series.findIndex((each) => each.name === name);
    if (index >= 0) {
      this.series[index].shown = !this.hidden.has(name);
      this.plot?.setSeries(index + 1, { show: this.series[index].shown });
    }
    this.onChange();
  }

  // Colours come from the page's style, so the chart is built again when the theme changes.
  restyle(): void {
    this.schemaVersion = -1;
    drawScheduler.request(this);
  }

  draw(): void {
    const rows = this.rows;
    if (this.schemaVersion !== rows.schemaVersion) {
      this.build();
    }
    const plot = this.plot;
    if (!plot) {
      return;
    }
    const data = this.data();
    if (!this.paused) {
      const times = data[0] as number[];
      this.range = rows.time
        ? latest(times, this.seconds)
        : [Math.max(0, rows.total - 500), Math.max(1, rows.total)];
    }
    plot.batch(() => {
      plot.setData(data, false);
      plot.setScale("x", { min: this.range[0], max: this.range[1] });
    });
  }

  private numericColumns(): number[] {
    const found: number[] = [];
    this.rows.columns.forEach((column, n) => {
      if (!column.hidden && (column.kind === "number" || column.kind === "boolean")) {
        found.push(n);
      }
    });
    return found;
  }

  private data(): uPlot.AlignedData {
    const rows = this.rows;
    const times = rows.time
      ? (rows.time.values as number[])
      : Array.from({ length: rows.length }, (_, n) => rows.first + n);
    return [times, ...this.numericColumns().map((n) => rows.columns[n].values as number[])];
  }

  private build(): void {
    this.plot?.destroy();
    this.plot = null;
    this.schemaVersion = this.rows.schemaVersion;
    const numeric = this.numericColumns();
    if (!numeric.length) {
      this.series = [];
      this.onChange();
      return;
    }
    const style = getComputedStyle(this.host);
    const line = style.getPropertyValue("--grid").trim();
    const text = style.getPropertyValue("--dim").trim();
    const columns = numeric.map((n) => this.rows.columns[n]);
    const units = [...new Set(columns.map(unitOf))].sort(
      (a, b) => Number(a === "bool") - Number(b === "bool"),
    );
    const withAxis = units.filter((unit, n) => n === 0 || unit !== "bool").slice(0, 2);
    this.series = columns.map((column, n) => ({
      name: column.name,
      colour: colour(n),
      shown: !this.hidden.has(column.name),
      unit: unitOf(column),
      decimals: column.decimals,
    }));
    const axis = {
      stroke: text,
      grid: { stroke: line, width: 1 },
      ticks: { stroke: line, size: 4 },
      font: "11px system-ui",
    };
    const scales: uPlot.Scales = { x: { time: this.rows.time !== null } };
    units.forEach(
      (unit) =>
        (scales[`y${unit}`] = { range: rangeOfScale(columns.filter((column) => unitOf(column) === unit)) }),
    );
    const options: uPlot.Options = {
      ...this.size(),
      ms: 1,
      legend: { show: false },
      padding: [8, 8, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { size: 6 }, focus: { prox: 24 } },
      scales,
      series: [
        {},
        ...this.series.map((each, n) => ({
          label: each.name,
          stroke: each.colour,
          width: 1.5,
          scale: `y${each.unit}`,
          show: each.shown,
          spanGaps: columns[n].spanNulls,
          paths: each.unit === "bool" ? uPlot.paths.stepped!({ align: 1 }) : undefined,
          points: { show: this.rows.length < 3 ? true : undefined },
        })),
      ],
      axes: [
        {
          ...axis,
          label: this.rows.time ? "time" : "row",
          labelSize: 16,
          size: 30,
          labelFont: "11px system-ui",
          space: 80,
          ...(this.rows.time ? { values: TIME_FORMATS } : {}),
        },
        ...withAxis.map((unit, n) => ({
          ...axis,
          scale: `y${unit}`,
          side: n === 0 ? 3 : 1,
          grid: { ...axis.grid, show: n === 0 },
          label: unitLabel(unit) || (n === 0 ? "value" : " "),
          labelSize: 16,
          labelFont: "11px system-ui",
          size: (_: uPlot, values: string[] | null) =>
            14 + 6.4 * Math.max(2, ...(values ?? []).map((value) => value.length)),
          incrs: BINARY.has(unit) ? POWERS_OF_TWO : undefined,
          values: (_: uPlot, splits: number[]) => splits.map((value) => formatValue(value, unit)),
        })),
      ],
      hooks: {
        setCursor: [
          (plot: uPlot) => {
            this.hover = plot.cursor.idx ?? null;
            this.onChange();
          },
        ],
      },
    };
    this.plot = new uPlot(options, this.data(), this.host);
    this.listen(this.plot);
    this.onChange();
  }

  private size(): { width: number; height: number } {
    return { width: Math.max(120, this.host.clientWidth), height: Math.max(80, this.host.clientHeight) };
  }

  private resize(): void {
    this.plot?.setSize(this.size());
    drawScheduler.request(this);
  }

  private move(from: number, to: number): void {
    this.range = [from, to];
    if (!this.paused) {
      this.pause(true);
    }
    drawScheduler.request(this);
  }

  private listen(plot: uPlot): void {
    const over = plot.over;
    let drag: { x: number; range: [number, number] } | null = null;
    over.style.touchAction = "pan-y";
    over.addEventListener("pointerdown", (event) => {
      drag = { x: event.clientX, range: this.range };
      over.setPointerCapture(event.pointerId);
    });
    over.addEventListener("pointermove", (event) => {
      if (drag && Math.abs(event.clientX - drag.x) > 2) {
        const width = drag.range[1] - drag.range[0];
        const by = ((event.clientX - drag.x) / over.clientWidth) * width;
        this.move(drag.range[0] - by, drag.range[1] - by);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) {
      over.addEventListener(name, () => (drag = null));
    }
    over.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.shiftKey && !event.altKey) {
          return; // the page scrolls
        }
        event.preventDefault();
        const [from, to] = this.range;
        const at =
          from + ((event.clientX - over.getBoundingClientRect().left) / over.clientWidth) * (to - from);
        const factor = event.deltaY + event.deltaX > 0 ? 1.25 : 0.8;
        this.move(at - (at - from) * factor, at + (to - at) * factor);
      },
      { passive: false },
    );
    over.addEventListener("dblclick", () => this.pause(false));
  }
}

function unitOf(column: Column): string {
  return column.kind === "boolean" ? "bool" : column.unit;
}

// The bounds of the field config; else the values with a margin. A flat line is drawn in the middle.
function rangeOfScale(columns: Column[]): uPlot.Range.Function | uPlot.Range.MinMax {
  if (columns[0].kind === "boolean") {
    return [-0.05, 1.05];
  }
  const fixedLow = minimum(columns.map((column) => column.min));
  const negatedHigh = minimum(columns.map((column) => (column.max === undefined ? undefined : -column.max)));
  return (_, low, high) => {
    if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) {
      return [fixedLow ?? 0, negatedHigh === undefined ? (fixedLow ?? 0) + 1 : -negatedHigh];
    }
    const height = high - low || Math.abs(high) || 1;
    const from = low - height * 0.08;
    const to = high + height * 0.08;
    return [
      fixedLow === undefined ? (low >= 0 && from < 0 ? 0 : from) : Math.min(fixedLow, low),
      negatedHigh === undefined ? to : Math.max(-negatedHigh, high),
    ];
  };
}

function minimum(values: (number | undefined)[]): number | undefined {
  return values.some((value) => value === undefined) ? undefined : Math.min(...(values as number[]));
}

// The newest rows within the time range; while they are fewer, they fill the chart.
function latest(times: number[], seconds: number): [number, number] {
  const last = times.length ? times[times.length - 1] : Date.now();
  const first = times.length ? times[0] : last;
  const width = Math.min(seconds * 1000, Math.max(last - first, MIN_WIDTH_MS));
  return [last - width, last];
}
