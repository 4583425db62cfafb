// Random histories: rows, lost packets, outages, late pages, restarts. In each frame of each panel
// there is every row of its range up to its last one, once and in order, and of one epoch.
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { NOW, type Panel, Script, packet, pass, upto } from "./script";

beforeEach(() => void vi.useFakeTimers({ now: NOW }));
afterEach(() => void vi.useRealTimers());

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function chance(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

const HISTORIES = Number((globalThis as any).process.env.AIOSTREAM_DS_HISTORIES ?? 100);

test.each(upto(HISTORIES))("history %i", async (seed) => {
  const random = chance(seed);
  const below = (limit: number) => Math.floor(random() * limit);
  const script = new Script();
  const panels: Panel[] = [];
  let sent = script.last;
  let deaf = false;
  const send = (last: number) => {
    if (!deaf) {
      script.tell(packet(sent, last, script.epoch));
    }
    sent = last;
  };
  const acts = [
    () => send((script.last += 1 + below(5))),
    () => send((script.last += 1 + below(5))),
    () => send(sent), // a heartbeat
    () => (script.last += below(4)), // written, and not yet read by the stream
    () => send(script.last),
    () => (deaf = !deaf),
    () => (script.failures = below(4)),
    () => (script.page = 1 + below(8)),
    () => script.tell(undefined, random() < 0.5 ? "connecting" : "connected"),
    () => script.tell(packet(Math.max(0, sent - 3), sent, script.epoch)), // told once more
    () => void panels.push(script.open()),
    () => panels.splice(below(panels.length + 1), 1).forEach((panel) => panel.follower.close()),
    () => [...script.listeners].forEach((listener) => (script.listeners.delete(listener), listener.ended())),
    () => (script.first = 1 + below(script.last)), // pages have lost what is older
    () => {
      script.first = 1;
      script.epoch = `e${below(1e9)}`;
      script.last = sent = below(20);
    },
  ];
  panels.push(script.open());
  const all = [...panels];
  for (let step = 0; step < 60; step++) {
    acts[below(acts.length)]();
    panels.filter((panel) => !all.includes(panel)).forEach((panel) => all.push(panel));
    await pass(random() < 0.2 ? random() * 5 : random() * 0.2);
  }
  deaf = false;
  script.failures = 0;
  script.page = 5_000;
  script.tell(packet(script.last, script.last, script.epoch), "connected");
  await pass(120);
  for (const { frame, columns, notices } of all.flatMap((panel) => panel.drawn)) {
    const [, numbers, epochs] = columns;
    expect(epochs).toEqual(epochs.map(() => frame));
    if (!notices.some(({ text }) => text.includes("are missing"))) {
      expect(numbers).toEqual(upto(numbers.length));
    }
  }
  for (const panel of panels) {
    expect(panel.latest[panel.latest.length - 1]).toBe(script.last || undefined);
    panel.follower.close();
  }
  await pass(60);
  expect(vi.getTimerCount()).toBe(0);
});
