import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { NOW, type Panel, Script, lasting, packet, pass, upto } from "./script";

let script: Script;

beforeEach(() => {
  vi.useFakeTimers({ now: NOW });
  script = new Script();
});

afterEach(() => vi.useRealTimers());

async function opened(options = {}): Promise<Panel> {
  const panel = script.open(options);
  await pass(0.06);
  return panel;
}

test("the history is drawn, and packets continue it (F1, F4)", async () => {
  const panel = await opened();
  script.tell(packet(10, 12));
  await pass(0.1);
  expect(panel.numbers).toEqual([upto(10), upto(12)]);
  expect(script.calls).toEqual([]);
});

test("a known packet is dropped and a half known one is cut (F3)", async () => {
  const panel = await opened();
  script.tell(packet(7, 10));
  script.tell(packet(8, 11));
  await pass(0.1);
  expect(panel.numbers.slice(1)).toEqual([upto(11)]);
});

test("rows are cut by the column that has their cursors", async () => {
  const panel = await opened();
  script.tell({ seam: { epoch: "e", prev: 8, last: 19, ids: 1 }, data: { values: [[9000, 12_000, 15_000], [9, 12, 15], ["e", "e", "e"]] } });
  await pass(0.1);
  expect(panel.latest).toEqual([...upto(10), 12, 15]);
  script.tell(packet(19, 20));
  await pass(0.1);
  expect(panel.latest).toEqual([...upto(10), 12, 15, 20]);
});

test("a hole is filled page by page before anything is drawn across it (F5)", async () => {
  const panel = await opened();
  script.last = 20;
  script.page = 3;
  script.tell(packet(18, 20));
  script.tell(packet(20, 21));
  await pass(0.2);
  expect(script.times("rows")).toHaveLength(4);
  panel.numbers.forEach((numbers) => expect(numbers).toEqual(upto(numbers.length)));
  expect(panel.latest).toEqual(upto(21));
});

test("the position at the join shows a hole", async () => {
  const history = script.history();
  script.last = 13;
  const panel = await opened({ history });
  await pass(0.1);
  expect(panel.latest).toEqual(upto(13));
});

test("of more packets than wait the oldest go, and are fetched", async () => {
  const panel = await opened();
  script.failures = 3;
  script.tell(packet(11, 12));
  for (let n = 12; n < 900; n++) {
    script.tell(packet(n, n + 1));
  }
  script.last = 900;
  await pass(6);
  expect(panel.latest).toEqual(upto(900));
});

test("failed calls are repeated more and more slowly, and said (F6)", async () => {
  const panel = await opened();
  script.failures = 6;
  script.last = 12;
  script.tell(packet(12, 12));
  await pass(10);
  expect(panel.notices).toEqual(["warning: Rows cannot be fetched, trying again: down"]);
  await pass(8);
  script.tell(packet(12, 12));
  await pass(2);
  expect(script.times("rows").slice(0, 7)).toEqual([0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5]);
  expect(panel.latest).toEqual(upto(12));
  expect(panel.notices).toEqual([]);
});

test("a call that is refused for good is repeated rarely, and said at once", async () => {
  const panel = await opened();
  script.failures = 3;
  script.failure = lasting("not for you");
  script.tell(packet(12, 12));
  await pass(1);
  expect(panel.notices).toEqual(["warning: Rows cannot be fetched, trying again: not for you"]);
  await pass(60);
  expect(script.times("rows").slice(0, 4)).toEqual([0, 2, 6, 14]);
});

test("a call without an answer is given up", async () => {
  let calls = 0;
  const rows = () => (calls++ ? Promise.resolve(script.rows(10)) : new Promise<never>(() => undefined));
  const panel = await opened({ rows });
  script.last = 12;
  script.tell(packet(12, 12));
  await pass(29);
  expect(calls).toBe(1);
  await pass(3);
  expect(panel.latest).toEqual(upto(12));
});

test("a server that reads late is asked again, and nothing is drawn meanwhile (F6)", async () => {
  const panel = await opened();
  script.tell(packet(20, 21));
  await pass(5);
  expect(panel.numbers).toHaveLength(1);
  script.last = 21;
  await pass(3);
  const times = script.times("rows");
  expect(times.slice(0, 6)).toEqual([0, 0.1, 0.3, 0.7, 1.5, 3.1]);
  expect(panel.latest).toEqual(upto(21));
});

test("another epoch loads again at once, then two and four seconds apart, and polls (F7)", async () => {
  const panel = await opened();
  for (let n = 0; n < 80; n++) {
    script.tell(packet(3, 4, "other"));
    await pass(0.1);
  }
  expect(script.times("load").map(Math.round)).toEqual([0, 2, 6]);
  expect(script.times("rows").length).toBeGreaterThan(2);
  script.tell(packet(10, 11));
  await pass(0.1);
  expect(panel.latest).toEqual(upto(11));
});

test("an epoch that is another for good is one reload, and never a mixture", async () => {
  const panel = await opened();
  script.epoch = "later";
  script.last = 4;
  script.tell(packet(4, 4, "later"));
  await pass(0.1);
  expect(script.times("load")).toHaveLength(1);
  expect(panel.drawn.map(({ frame, columns }) => [frame, columns[1]])).toEqual([
    ["e", upto(10)],
    ["later", upto(4)],
  ]);
});

test("what pages have lost is loaded once from the history", async () => {
  const panel = await opened();
  script.first = 15;
  script.last = 20;
  script.tell(packet(20, 20));
  await pass(0.1);
  expect(script.times("load")).toHaveLength(1);
  expect(panel.latest).toEqual(upto(20));
  expect(panel.notices).toEqual([]);
});

test("what is lost after a reload, too, is a gap with a notice", async () => {
  const panel = await opened({
    load: async () => {
      script.called("load");
      const history = script.history();
      script.first = 25;
      script.last = 30;
      return history;
    },
  });
  script.first = 15;
  script.last = 20;
  script.tell(packet(30, 30));
  await pass(120);
  expect(script.times("load")).toHaveLength(1);
  expect(panel.latest).toEqual([...upto(20), ...upto(30, 25)]);
  expect(panel.notices).toContainEqual(expect.stringMatching(/^warning: Rows before .* are missing/));
});

test("what is lost again and again loads again more and more slowly", async () => {
  await opened();
  for (let n = 0; n < 100; n++) {
    script.last += 5;
    script.first = script.last - 1;
    script.tell(packet(script.last, script.last));
    await pass(0.1);
    script.tell(packet(script.last, script.last)); // all is well, for a moment
    await pass(0.1);
  }
  expect(script.times("load").length).toBeLessThanOrEqual(5);
});

test("a history that went with its process is a gap, until it has left the range", async () => {
  let from = 0;
  const panel = await opened({ from: () => from });
  script.epoch = "later";
  script.last = 0;
  script.tell(packet(0, 0, "later"));
  await pass(0.1);
  expect(panel.latest).toEqual([]);
  expect(panel.notices[0]).toMatch(/are missing/);
  from = NOW + 10_000;
  script.last = 1;
  script.tell({ ...packet(0, 0, "later"), state: { severity: "info", text: "back" } });
  await pass(0.1);
  expect(panel.notices).toEqual(["info: back"]);
});

test("without a socket rows are polled every two seconds, and it is said (F8)", async () => {
  const panel = await opened();
  await pass(1);
  expect(script.calls).toEqual([]);
  script.tell(undefined, "connecting");
  script.last = 12;
  await pass(7);
  expect(script.times("rows")).toEqual([0, 2, 4, 6]);
  expect(panel.latest).toEqual(upto(12));
  expect(panel.notices).toEqual(["info: No live connection: new rows are fetched every 2 s."]);
  script.tell(packet(12, 12), "connected");
  await pass(2);
  expect(panel.notices).toEqual([]);
});

test("a socket that is silent for longer than the plugin ever is counts as lost", async () => {
  await opened();
  for (let n = 0; n < 10; n++) {
    script.tell(packet(10, 10));
    await pass(2);
  }
  expect(script.calls).toEqual([]);
  await pass(10);
  expect(script.times("rows").length).toBeGreaterThan(1);
});

test("where there are no raw subscriptions at all, rows are polled", async () => {
  const { Taps } = await import("../../src/seam/tap");
  (script as { taps: unknown }).taps = new Taps(() => undefined);
  const panel = await opened();
  script.last = 11;
  await pass(3);
  expect(panel.latest).toEqual(upto(11));
});

test("a second panel is handed the tap's position, and shares its subscription (F9)", async () => {
  script.position = false;
  await opened();
  script.tell(packet(10, 14));
  const history = script.history();
  script.last = 14;
  const second = await opened({ history });
  expect(second.latest).toEqual(upto(14));
  expect(script.subscriptions).toBe(1);
});

test("a tap stays ten seconds after its last panel", async () => {
  for (const wait of [9, 11, 0]) {
    const panel = await opened();
    panel.follower.close();
    await pass(wait);
  }
  expect(script.subscriptions).toBe(2);
});

test("a subscription that ends is opened again after three seconds, then later and later", async () => {
  await opened();
  const ends = () => [...script.listeners].forEach((listener) => (script.listeners.delete(listener), listener.ended()));
  ends();
  await pass(2.9);
  expect(script.subscriptions).toBe(1);
  await pass(0.2);
  expect(script.subscriptions).toBe(2);
  script.position = false;
  ends();
  await pass(4);
  ends();
  await pass(4);
  expect(script.subscriptions).toBe(3);
});

test("what is older than the range, or too much, is not drawn; of too much it is said (F10)", async () => {
  const few = await opened({ points: 4 });
  const narrow = await opened({ from: () => 5_000 });
  script.tell(packet(10, 11));
  await pass(0.1);
  expect(few.numbers).toEqual([upto(10, 7), upto(11, 8)]);
  expect(few.notices).toEqual(['info: Only the newest 4 rows are drawn: the panel\'s "Max data points".']);
  expect(narrow.latest).toEqual(upto(11, 5));
  expect(narrow.notices).toEqual([]);
});

test("what the plugin says of its source is a notice until it says that all is well", async () => {
  const panel = await opened();
  script.tell(packet(10, 10, "e", { state: { severity: "warning", text: "reconnecting (3)" } }));
  await pass(0.1);
  expect(panel.notices).toEqual(["warning: reconnecting (3)"]);
  script.last = 11;
  script.tell(packet(10, 11)); // rows say nothing of it
  await pass(0.1);
  expect(panel.notices).toEqual(["warning: reconnecting (3)"]);
  const second = await opened();
  await pass(0.1);
  expect(second.notices).toEqual(["warning: reconnecting (3)"]);
  script.tell(packet(11, 11), "connected"); // what a subscription is answered with knows nothing of it
  await pass(0.1);
  expect(panel.notices).toEqual(["warning: reconnecting (3)"]);
  script.tell(packet(11, 11, "e", { state: null }));
  await pass(0.1);
  expect([panel.notices, second.notices]).toEqual([[], []]);
});

test("a panel that is slow to draw is drawn less often, and misses nothing", async () => {
  const panel = await opened();
  const clock = performance.now.bind(performance);
  let blocked = 0;
  let drawing = 400; // ms in which nothing else runs
  vi.spyOn(performance, "now").mockImplementation(() => clock() + blocked);
  const push = panel.drawn.push.bind(panel.drawn);
  panel.drawn.push = (emission) => {
    blocked += drawing;
    return push(emission);
  };
  const tell = async (from: number, to: number) => {
    const before = panel.drawn.length;
    for (let n = from; n <= to; n++) {
      script.tell(packet(n - 1, n));
      await pass(0.1);
    }
    return panel.drawn.length - before;
  };
  const slow = await tell(11, 50);
  expect(slow).toBeGreaterThan(3);
  expect(slow).toBeLessThan(7); // one each 0.8 s that are left, not one each 0.1 s
  drawing = 0;
  await pass(1);
  expect(panel.latest).toEqual(upto(50));
  expect(await tell(51, 70)).toBe(20);
  vi.restoreAllMocks();
});

test("a hidden panel takes rows, draws none, and draws them all when it is seen", async () => {
  let hidden = false;
  const panel = await opened({ hidden: () => hidden });
  hidden = true;
  for (let n = 10; n < 40; n++) {
    script.tell(packet(n, n + 1));
    await pass(1);
  }
  expect(panel.numbers).toHaveLength(1);
  hidden = false;
  panel.follower.shown();
  await pass(0.1);
  expect(panel.numbers.slice(1)).toEqual([upto(40)]);
});

test("many packets at once are few frames", async () => {
  const panel = await opened();
  for (let n = 10; n < 1010; n++) {
    script.tell(packet(n, n + 1));
    await pass(0.001);
  }
  await pass(0.1);
  expect(panel.numbers.length).toBeLessThan(30);
  expect(panel.latest).toEqual(upto(1010));
});

test("columns that do not fit are a reload, never drawn", async () => {
  const panel = await opened();
  script.last = 11;
  script.tell({ seam: { epoch: "e", prev: 10, last: 11 }, data: { values: [[11_000]] } });
  await pass(0.1);
  expect(script.times("load")).toHaveLength(1);
  expect(panel.latest).toEqual(upto(11));
});

test("infinities and NaN come back, and the shared message is left as it was", async () => {
  const panel = await opened();
  const message = { seam: { epoch: "e", prev: 10, last: 12 }, data: { values: [[1, 2], [null, null], ["e", "e"]], entities: [null, { NaN: [0], Inf: [1] }] } };
  script.tell(message);
  await pass(0.1);
  expect(panel.latest.slice(-2)).toEqual([NaN, Infinity]);
  expect(message.data.values[1]).toEqual([null, null]);
});

test("a closed follower asks and draws no more", async () => {
  const panel = await opened();
  panel.follower.close();
  script.tell(packet(15, 16));
  await pass(30);
  expect(script.calls).toEqual([]);
  expect(panel.numbers).toHaveLength(1);
  expect(vi.getTimerCount()).toBe(0);
});

test("a state without a place is a notice, too, and the first place without one takes it back", async () => {
  const panel = await opened();
  script.tell({ state: { severity: "error", text: "no such topic" } });
  await pass(0.1);
  expect(panel.notices).toEqual(["error: no such topic"]);
  script.tell(packet(10, 10));
  await pass(0.1);
  expect(panel.notices).toEqual([]);
});

test("without a socket the plugin's state comes with the rows", async () => {
  const panel = await opened();
  script.state = { severity: "warning", text: "reconnecting (1)" };
  script.tell(undefined, "connecting");
  await pass(3);
  expect(panel.notices).toContain("warning: reconnecting (1)");
  script.state = undefined;
  await pass(3);
  expect(panel.notices).not.toContain("warning: reconnecting (1)");
});
