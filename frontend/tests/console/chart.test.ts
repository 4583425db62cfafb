import { expect, test, vi } from "vitest";
import type uPlot from "uplot";

import { Chart } from "../../src/console/chart";
import { RowBuffer, valueAt } from "../../src/console/rowBuffer";

const plots = vi.hoisted(() => [] as { options: unknown; data: unknown }[]);

vi.mock("uplot", () => {
  class Plot {
    over = document.createElement("div");
    constructor(options: unknown, data: unknown) {
      plots.push({ options, data });
    }
    batch(): void {}
    destroy(): void {}
    static paths = { stepped: () => undefined };
  }
  return { default: Plot };
});
vi.stubGlobal(
  "ResizeObserver",
  class {
    observe(): void {}
    disconnect(): void {}
  },
);

const SERIES = { spanNulls: true };
const CURSOR = { hideFrom: { legend: true, tooltip: true, viz: true } };

function rows(): RowBuffer {
  const found = new RowBuffer();
  found.add({
    schema: {
      fields: [
        { name: "time", type: "time" },
        { name: 'cpu {host="a"}', type: "number", config: { custom: SERIES, displayNameFromDS: "cpu a" } },
        { name: 'cpu {host="b"}', type: "number", config: { custom: SERIES, displayNameFromDS: "cpu b" } },
        { name: "plain", type: "number" },
        { name: "offset", type: "number", config: { custom: CURSOR } },
      ],
    },
    data: {
      values: [
        [1, 2, 3],
        [1.5, null, null],
        [null, 2.5, null],
        [7, 8, null],
        [7.36e15, 7.36e15, 7.36e15],
      ],
    },
  });
  return found;
}

function drawn(): { options: uPlot.Options; data: uPlot.AlignedData } {
  plots.length = 0;
  const chart = new Chart(document.createElement("div"), rows(), 60);
  chart.draw();
  chart.destroy();
  return plots[0] as { options: uPlot.Options; data: uPlot.AlignedData };
}

test("a chart does not draw columns that are hidden from panels", () => {
  const { options, data } = drawn();
  expect(options.series.slice(1).map((each) => each.label)).toEqual(["cpu a", "cpu b", "plain"]);
  expect(data).toHaveLength(4);
});

test("a chart connects the rows of a series across the rows of others", () => {
  expect(drawn().options.series.slice(1).map((each) => each.spanGaps)).toEqual([true, true, false]);
});

test("the legend has the newest value of each series", () => {
  const columns = rows().columns;
  expect(columns.slice(1, 4).map((column) => valueAt(column, 2))).toEqual([1.5, 2.5, null]);
  expect(columns.slice(1, 3).map((column) => valueAt(column, 0))).toEqual([1.5, null]);
});

test("a hidden column is still in the table", () => {
  expect(rows().columns.map((column) => column.name)).toContain("offset");
});
