// Random sequences of rows, lost packets, outages, lagging pages and restarts. Each frame of each panel
// has every row of its range up to its last one, once and in order; with a thinned history, every row that
// has come since it was loaded. Rows of an earlier epoch are before those of a later one, with a notice.
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { FakeGrafana, NOW, type Panel, advance, packet, upto } from "./fake";

beforeEach(() => void vi.useFakeTimers({ now: NOW }));
afterEach(() => void vi.useRealTimers());

/** Pseudo-random numbers from 0 to 1 (mulberry32). */
function generator(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const SEQUENCES = Number((globalThis as any).process.env.AIOSTREAM_DS_HISTORIES ?? 100);

test.each(upto(SEQUENCES))("sequence %i", async (seed) => {
  const random = generator(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const grafana = new FakeGrafana();
  grafana.cursors = (["numbers", "pairs", "texts"] as const)[seed % 3]!;
  grafana.thins = seed % 2 === 0;
  const open = () => grafana.open(grafana.thins ? { limit: 6 } : {});
  const panels: Panel[] = [];
  let sent = grafana.last;
  let dropping = false;
  let epochs = 0;
  const send = (last: number) => {
    if (!dropping) {
      grafana.send(packet(sent, last, grafana.epoch, {}, grafana.offset));
    }
    sent = last;
  };
  const actions = [
    () => send((grafana.last += 1 + below(5))),
    () => send((grafana.last += 1 + below(5))),
    () => send(sent), // a heartbeat
    () => (grafana.last += below(4)), // written but not read by the stream yet
    () => send(grafana.last),
    () => (dropping = !dropping),
    () => (grafana.failures = below(4)),
    () => (grafana.pageRows = 1 + below(8)),
    () => grafana.send(undefined, random() < 0.5 ? "connecting" : "connected"),
    () => grafana.send(packet(Math.max(0, sent - 3), sent, grafana.epoch, {}, grafana.offset)), // sent again
    () => void panels.push(open()),
    () => panels.splice(below(panels.length + 1), 1).forEach((panel) => panel.follower.close()),
    () => grafana.endSubscriptions(),
    () => (grafana.first = 1 + below(grafana.last)), // pages have lost older rows
    () => {
      const offset = random() < 0.5 ? grafana.offset : grafana.offset + grafana.last;
      grafana.restart(`e${epochs++}`, (sent = below(20)), offset);
      grafana.upstream = random() < 0.5 ? grafana.upstream : `u${epochs}`;
    },
  ];
  panels.push(open());
  const all = [...panels];
  for (let step = 0; step < 60; step++) {
    actions[below(actions.length)]();
    panels.filter((panel) => !all.includes(panel)).forEach((panel) => all.push(panel));
    await advance(random() < 0.2 ? random() * 5 : random() * 0.2);
  }
  dropping = false;
  grafana.failures = 0;
  grafana.pageRows = 5_000;
  grafana.send(packet(grafana.last, grafana.last, grafana.epoch), "connected");
  await advance(120);
  const drawings = all.flatMap(({ drawn, loads }) =>
    drawn.map((drawing, index) => ({ ...drawing, loads: loads.filter((load) => load.drawings <= index) }))
  );
  for (const { columns, notices, loads } of drawings) {
    const [times, numbers, names] = columns as [number[], number[], string[]];
    times.forEach((time, row) => expect(time).toBeGreaterThan(row > 0 ? times[row - 1] : -1));
    const changes = names.flatMap((name, row) => (row > 0 && name !== names[row - 1] ? [row] : []));
    expect(changes).toHaveLength(Math.max(0, new Set(names).size - 1)); // no epoch twice
    if (!notices.some(({ text }) => text.startsWith("Rows "))) {
      expect(changes).toEqual([]);
      const load = loads.filter(({ epoch }) => epoch === names[0]).at(-1);
      const thinned = grafana.thins ? load?.last ?? 0 : 0;
      const exact = numbers.filter((n) => n > thinned);
      expect(exact).toEqual(upto(thinned + exact.length, thinned + 1));
    }
  }
  for (const panel of panels) {
    if (grafana.last > 0) {
      expect(panel.latest[panel.latest.length - 1]).toBe(grafana.last);
    }
    panel.follower.close();
  }
  await advance(60);
  expect(vi.getTimerCount()).toBe(0);
});
