import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { DrawThrottle } from "../../src/exact/throttle";

let starts: number[];
let duration: number; // ms of a draw, in which nothing else runs
let isHidden: boolean;
let throttle: DrawThrottle;

beforeEach(() => {
  vi.useFakeTimers({ now: 0 });
  [starts, duration, isHidden] = [[], 0, false];
  throttle = new DrawThrottle(
    () => {
      starts.push(Date.now());
      vi.setSystemTime(Date.now() + duration);
    },
    () => isHidden
  );
  vi.spyOn(performance, "now").mockImplementation(() => Date.now());
});

afterEach(() => {
  throttle.close();
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** The starts of the draws while a draw is requested every ms. */
async function requestFor(ms: number): Promise<number[]> {
  for (let n = 0; n < ms; n++) {
    throttle.request();
    await vi.advanceTimersByTimeAsync(1);
  }
  return starts;
}

test.each([
  ["a fast draw is repeated after 50 ms", 0, 50],
  ["a draw of 10 ms leaves 40 ms", 10, 50],
  ["a draw of 100 ms leaves three times as long", 100, 400],
  ["a draw of 2 s leaves 2 s, not more", 2_000, 4_000],
])("%s", async (_, ms, period) => {
  duration = ms;
  const [, first, second, third] = await requestFor(7_000);
  // a little later: there is a request each ms, and a timer measures the draw
  expect(second - first).toBeGreaterThanOrEqual(period);
  expect(second - first).toBeLessThanOrEqual(period + 10);
  expect(third - second).toBeLessThanOrEqual(period + 10);
});

test("a request before the work of a draw has ended waits for its idle time", async () => {
  duration = 100;
  throttle.request();
  throttle.request(); // in the same task
  await vi.advanceTimersByTimeAsync(1_000);
  expect(starts).toHaveLength(2);
  expect(starts[1]).toBeGreaterThanOrEqual(400);
});

test("a hidden panel is drawn only by force, as after a reload", async () => {
  isHidden = true;
  throttle.request();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(starts).toEqual([]);
  throttle.request(true);
  expect(starts).toEqual([1_000]);
});
