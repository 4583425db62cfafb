import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { FakeGrafana, NOW, type Panel, advance, packet, permanent, upto } from "./fake";

let grafana: FakeGrafana;

beforeEach(() => {
  vi.useFakeTimers({ now: NOW });
  grafana = new FakeGrafana();
});

afterEach(() => vi.useRealTimers());

async function opened(options = {}): Promise<Panel> {
  const panel = grafana.open(options);
  await advance(0.06);
  return panel;
}

test("the history is drawn and packets continue it", async () => {
  const panel = await opened();
  grafana.send(packet(10, 12));
  await advance(0.1);
  expect(panel.numbers).toEqual([upto(10), upto(12)]);
  expect(grafana.calls).toEqual([]);
});

test("a packet that was received before is dropped, one that overlaps is cut", async () => {
  const panel = await opened();
  grafana.send(packet(7, 10));
  grafana.send(packet(8, 11));
  await advance(0.1);
  expect(panel.numbers.slice(1)).toEqual([upto(11)]);
});

test("an overlapping packet is cut by the column that holds the cursors", async () => {
  const panel = await opened();
  grafana.send({ cursor: { epoch: "e", prev: 8, last: 19, column: 1 }, data: { values: [[9000, 12_000, 15_000], [9, 12, 15], ["e", "e", "e"]] } });
  await advance(0.1);
  expect(panel.latest).toEqual([...upto(10), 12, 15]);
  grafana.send(packet(19, 20));
  await advance(0.1);
  expect(panel.latest).toEqual([...upto(10), 12, 15, 20]);
});

test("a gap is fetched page by page before later rows are drawn", async () => {
  const panel = await opened();
  grafana.last = 20;
  grafana.pageRows = 3;
  grafana.send(packet(18, 20));
  grafana.send(packet(20, 21));
  await advance(0.2);
  expect(grafana.times("rows")).toHaveLength(4);
  panel.numbers.forEach((numbers) => expect(numbers).toEqual(upto(numbers.length)));
  expect(panel.latest).toEqual(upto(21));
});

test("the initial cursor of the subscription reveals a gap", async () => {
  const history = grafana.history();
  grafana.last = 13;
  const panel = await opened({ history });
  await advance(0.1);
  expect(panel.latest).toEqual(upto(13));
});

test("the oldest of too many queued packets are dropped and fetched", async () => {
  const panel = await opened();
  grafana.failures = 3;
  grafana.send(packet(11, 12));
  for (let n = 12; n < 900; n++) {
    grafana.send(packet(n, n + 1));
  }
  grafana.last = 900;
  await advance(6);
  expect(panel.latest).toEqual(upto(900));
});

test("failing calls are repeated with back-off and shown in a notice", async () => {
  const panel = await opened();
  grafana.failures = 6;
  grafana.last = 12;
  grafana.send(packet(12, 12));
  await advance(10);
  expect(panel.notices).toEqual(["warning: Rows cannot be fetched, retrying: down"]);
  await advance(8);
  grafana.send(packet(12, 12));
  await advance(2);
  expect(grafana.times("rows").slice(0, 7)).toEqual([0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5]);
  expect(panel.latest).toEqual(upto(12));
  expect(panel.notices).toEqual([]);
});

test("a call with a permanent error is repeated rarely and shown at once", async () => {
  const panel = await opened();
  grafana.failures = 3;
  grafana.failure = permanent("not for you");
  grafana.send(packet(12, 12));
  await advance(1);
  expect(panel.notices).toEqual(["warning: Rows cannot be fetched, retrying: not for you"]);
  await advance(60);
  expect(grafana.times("rows").slice(0, 4)).toEqual([0, 2, 6, 14]);
});

test("a call without an answer times out and is repeated", async () => {
  let calls = 0;
  const rows = () => (calls++ ? Promise.resolve(grafana.rows(10)) : new Promise<never>(() => undefined));
  const panel = await opened({ rows });
  grafana.last = 12;
  grafana.send(packet(12, 12));
  await advance(29);
  expect(calls).toBe(1);
  await advance(3);
  expect(panel.latest).toEqual(upto(12));
});

test("a lagging server is asked again, and nothing is drawn until it has the rows", async () => {
  const panel = await opened();
  grafana.send(packet(20, 21));
  await advance(5);
  panel.numbers.forEach((numbers) => expect(numbers).toEqual(upto(10)));
  grafana.last = 21;
  await advance(3);
  const times = grafana.times("rows");
  expect(times.slice(0, 6)).toEqual([0, 0.1, 0.3, 0.7, 1.5, 3.1]);
  expect(panel.latest).toEqual(upto(21));
});

test("another epoch reloads at once, then two and four seconds apart, and polls", async () => {
  const panel = await opened();
  for (let n = 0; n < 80; n++) {
    grafana.send(packet(3, 4, "other"));
    await advance(0.1);
  }
  expect(grafana.times("load").map(Math.round)).toEqual([0, 2, 6]);
  expect(grafana.times("rows").length).toBeGreaterThan(2);
  grafana.send(packet(10, 11));
  await advance(0.1);
  expect(panel.latest).toEqual(upto(11));
});

test("a new epoch causes one reload, and its history replaces the drawn rows of its time", async () => {
  const panel = await opened();
  grafana.restart("later", 4, 3); // the times 4 … 7 s
  grafana.send(packet(4, 4, "later"));
  await advance(0.1);
  expect(grafana.times("load")).toHaveLength(1);
  expect(panel.drawn.map(({ columns }) => columns[1])).toEqual([upto(10), [1, 2, 3, 1, 2, 3, 4]]);
  expect(panel.notices).toEqual([expect.stringMatching(/^warning: Rows between .*:03.* and .*:04.* may be missing\.$/)]);
});

test("drawn rows stay when the plugin starts again, and the gap is shown until it has left the range", async () => {
  let from = 0;
  const panel = await opened({ from: () => from });
  grafana.restart("later", 0, 20);
  grafana.send(packet(0, 0, "later"));
  await advance(0.1);
  expect(panel.latest).toEqual(upto(10));
  expect(panel.notices).toEqual([expect.stringMatching(/^warning: Rows after .*:10.* may be missing; none has come since\.$/)]);
  grafana.write(2);
  await advance(0.1);
  expect(panel.latest).toEqual([...upto(10), 1, 2]);
  expect(panel.drawn.at(-1)?.columns[0]).toEqual([...upto(10), 21, 22].map((n) => n * 1000));
  expect(panel.notices).toEqual([expect.stringMatching(/^warning: Rows between .*:10.* and .*:21.* may be missing\.$/)]);
  from = 21_001;
  grafana.write(3);
  await advance(0.1);
  expect([panel.latest, panel.notices]).toEqual([[2, 3], []]);
});

test("a refresh keeps the drawn rows that the history does not have any more, and their gaps", async () => {
  const before = await opened();
  grafana.restart("later", 2, 20);
  grafana.send(packet(2, 2, "later"));
  await advance(0.1);
  expect(before.latest).toEqual([...upto(10), 1, 2]);
  const notices = before.notices;
  before.follower.close();
  await advance(1);
  grafana.write(4);
  const after = await opened();
  expect(after.latest).toEqual([...upto(10), 1, 2, 3, 4]);
  expect(after.notices).toEqual(notices);
  grafana.write(5);
  await advance(0.1);
  expect(after.latest).toEqual([...upto(10), 1, 2, 3, 4, 5]);
  expect(before.latest).toEqual([...upto(10), 1, 2]);
});

test("a refresh with another range keeps the rows of that range only, one with a full history none", async () => {
  const before = await opened();
  grafana.restart("later", 2, 20);
  grafana.send(packet(2, 2, "later"));
  await advance(0.1);
  before.follower.close();
  const shorter = await opened({ from: () => 8000 });
  expect(shorter.latest).toEqual([8, 9, 10, 1, 2]);
  shorter.follower.close();
  const full = await opened({ limit: 2 });
  expect(full.latest).toEqual([1, 2]);
});

test("a refresh of a silent stream whose log is empty shows no gap", async () => {
  const before = await opened();
  before.follower.close();
  const [time, numbers, epochs] = grafana.history().columns;
  const empty = { ...grafana.history(), columns: [time, numbers, epochs].map(() => []) };
  const after = await opened({ history: empty });
  expect([after.latest, after.notices]).toEqual([upto(10), []]);
  after.follower.close();
  grafana.last = 12;
  const late = await opened({ history: { ...empty, cursor: { ...empty.cursor, last: 12 } } });
  expect(late.latest).toEqual(upto(10));
  expect(late.notices).toEqual([expect.stringMatching(/^warning: Rows after .*:10.* are missing; none has come since\.$/)]);
});

test("another panel, a later one and one that is still open get no rows of a panel", async () => {
  const panel = await opened();
  grafana.restart("later", 2, 20);
  const open = await opened();
  expect(open.latest).toEqual([1, 2]);
  const other = await opened({ key: "2" });
  expect(other.latest).toEqual([1, 2]);
  [panel, open, other].forEach(({ follower }) => follower.close());
  await advance(11);
  const later = await opened();
  expect(later.latest).toEqual([1, 2]);
});

test("a refresh shows no failure of the calls before it", async () => {
  const before = await opened();
  grafana.failures = 1;
  grafana.failure = permanent("not for you");
  grafana.send(packet(12, 12));
  await advance(1);
  expect(before.notices).toEqual(["warning: Rows cannot be fetched, retrying: not for you"]);
  before.follower.close();
  const after = await opened();
  expect([after.latest, after.notices]).toEqual([upto(10), []]);
});

test("the first rows of a new epoch replace drawn rows that are not before them", async () => {
  const panel = await opened();
  grafana.restart("later", 0, 7);
  grafana.send(packet(0, 0, "later"));
  await advance(0.1);
  grafana.write(2);
  await advance(0.1);
  expect(panel.drawn.at(-1)?.columns[0]).toEqual(upto(9).map((n) => n * 1000));
  expect(panel.latest).toEqual([...upto(7), 1, 2]);
});

test("each restart is a gap, and a notice counts them", async () => {
  const panel = await opened();
  for (const n of [1, 2, 3]) {
    grafana.restart(`e${n}`, 0, 20 * n);
    grafana.send(packet(0, 0, `e${n}`));
    await advance(40);
    grafana.write(2);
    await advance(0.1);
  }
  expect(panel.latest).toEqual([...upto(10), 1, 2, 1, 2, 1, 2]);
  expect(panel.notices).toContainEqual(expect.stringMatching(/may be missing\. Earlier gaps: 2\.$/));
});

test("gaps and rows beyond the limit are annotations in the chart", async () => {
  const annotations = (panel: Panel) => panel.drawn.at(-1)?.annotations.map(({ from, to }) => [from / 1000, to && to / 1000]);
  const panel = await opened();
  expect(annotations(panel)).toEqual([]);
  grafana.restart("later", 0, 20);
  grafana.send(packet(0, 0, "later"));
  await advance(0.1);
  expect(annotations(panel)).toEqual([[10, undefined]]);
  grafana.write(2);
  await advance(0.1);
  expect(annotations(panel)).toEqual([[10, 21]]);
  expect(panel.drawn.at(-1)?.annotations[0].text).toMatch(/^Rows between .* may be missing\.$/);
  const few = await opened({ limit: 1, from: () => 5_000 });
  expect(annotations(few)).toEqual([[5, 22]]);
});

test("rows of another upstream system that have the same time replace all drawn rows", async () => {
  grafana.upstream = "a";
  const panel = await opened();
  grafana.restart("later", 4, 5);
  grafana.upstream = "b";
  grafana.send(packet(4, 4, "later"));
  await advance(0.1);
  expect(panel.latest).toEqual(upto(4));
  expect(panel.notices).toEqual([expect.stringMatching(/^warning: Rows before .* are missing\.$/)]);
});

test("rows of another upstream system that are all later follow the drawn ones", async () => {
  grafana.upstream = "a";
  const panel = await opened();
  grafana.restart("later", 4, 50);
  grafana.upstream = "b";
  grafana.send(packet(4, 4, "later"));
  await advance(0.1);
  expect(panel.latest).toEqual([...upto(10), ...upto(4)]);
});

test("rows of other columns are never drawn in one frame", async () => {
  const panel = await opened({ sameColumns: (frame: string, other: string) => frame === other });
  grafana.restart("later", 4, 50);
  grafana.send(packet(4, 4, "later"));
  await advance(0.1);
  expect(panel.latest).toEqual(upto(4));
  expect(panel.notices).toEqual([expect.stringMatching(/^warning: Rows before .* are missing\.$/)]);
});

test("a new log without columns keeps the drawn rows until its first row defines the columns", async () => {
  const panel = await opened({
    load: async () => {
      grafana.recordCall("load");
      const history = grafana.history();
      return grafana.last > 0 ? history : { ...history, columns: [] };
    },
  });
  grafana.restart("later.", 0, 20);
  grafana.send(packet(0, 0, "later."));
  await advance(5);
  expect([panel.latest, panel.drawn.at(-1)?.frame]).toEqual([upto(10), "e"]);
  expect(panel.notices).toEqual([expect.stringContaining("none has come since")]);
  grafana.restart("later.columns", 0, 20);
  grafana.write(2);
  await advance(0.1);
  expect(panel.latest).toEqual([...upto(10), 1, 2]);
  expect(panel.notices).toEqual([expect.stringMatching(/between .* may be missing\.$/)]);
});

test("rows without a time do not stay, because nothing orders them", async () => {
  const panel = await opened({ history: { ...grafana.history(), time: -1 } });
  grafana.restart("later", 4, 50);
  grafana.send(packet(4, 4, "later"));
  await advance(0.1);
  expect(panel.latest).toEqual(upto(4));
});

test("a panel whose history has as many rows as it draws keeps none", async () => {
  const panel = await opened({ limit: 4 });
  grafana.restart("later", 6, 50);
  grafana.send(packet(6, 6, "later"));
  await advance(0.1);
  expect(panel.latest).toEqual([3, 4, 5, 6]);
});

test("a panel shows what it waits for", async () => {
  let answer = (): void => undefined;
  const pending = new Promise<never>((_, reject) => (answer = () => reject(new Error("gone"))));
  let calls = 0;
  const panel = await opened({ rows: async (_: string, after: number) => (calls++ ? grafana.rows(after) : pending) });
  grafana.send(packet(12, 12));
  await advance(2.9);
  expect(panel.notices).toEqual([]);
  await advance(0.2);
  expect(panel.notices).toEqual(["info: Waiting for an answer of Grafana."]);
  answer();
  await advance(6);
  expect(panel.notices).toEqual(["info: Waiting for rows that the server has not read yet."]);
  grafana.last = 12;
  await advance(3);
  expect([panel.latest, panel.notices]).toEqual([upto(12), []]);
});

test("a panel that may not load its history again yet shows it", async () => {
  const panel = await opened();
  for (const n of [1, 2, 3]) {
    grafana.restart(`e${n}`, 0, 20 * n);
    grafana.write(2);
    await advance(0.5);
  }
  expect(panel.notices).toContain("info: Waiting to load the rows again after a restart or a change.");
  await advance(8);
  expect(panel.latest).toEqual([...upto(10), 1, 2, 1, 2]);
  expect(panel.notices).not.toContain("info: Waiting to load the rows again after a restart or a change.");
});

test("rows that pages have lost are loaded once from the history", async () => {
  const panel = await opened();
  grafana.first = 15;
  grafana.last = 20;
  grafana.send(packet(20, 20));
  await advance(0.1);
  expect(grafana.times("load")).toHaveLength(1);
  expect(panel.latest).toEqual(upto(20));
  expect(panel.notices).toEqual([]);
});

test("rows that the reloaded history lacks too are a gap with a notice", async () => {
  const panel = await opened({
    load: async () => {
      grafana.recordCall("load");
      const history = grafana.history();
      grafana.first = 25;
      grafana.last = 30;
      return history;
    },
  });
  grafana.first = 15;
  grafana.last = 20;
  grafana.send(packet(30, 30));
  await advance(120);
  expect(grafana.times("load")).toHaveLength(1);
  expect(panel.latest).toEqual([...upto(20), ...upto(30, 25)]);
  expect(panel.notices).toContainEqual(expect.stringMatching(/^warning: Rows between .*:20.* and .*:25.* are missing\.$/));
});

test("repeated truncation reloads more and more slowly", async () => {
  await opened();
  for (let n = 0; n < 100; n++) {
    grafana.last += 5;
    grafana.first = grafana.last - 1;
    grafana.send(packet(grafana.last, grafana.last));
    await advance(0.1);
    grafana.send(packet(grafana.last, grafana.last)); // continues, for a moment
    await advance(0.1);
  }
  expect(grafana.times("load").length).toBeLessThanOrEqual(5);
});

test("without a socket rows are polled every two seconds, with a notice", async () => {
  const panel = await opened();
  await advance(1);
  expect(grafana.calls).toEqual([]);
  grafana.send(undefined, "connecting");
  grafana.last = 12;
  await advance(7);
  expect(grafana.times("rows")).toEqual([0, 2, 4, 6]);
  expect(panel.latest).toEqual(upto(12));
  expect(panel.notices).toEqual(["info: No live connection: new rows are fetched every 2 s."]);
  grafana.send(packet(12, 12), "connected");
  await advance(2);
  expect(panel.notices).toEqual([]);
});

test("a socket without heartbeats counts as lost", async () => {
  await opened();
  for (let n = 0; n < 10; n++) {
    grafana.send(packet(10, 10));
    await advance(2);
  }
  expect(grafana.calls).toEqual([]);
  await advance(10);
  expect(grafana.times("rows").length).toBeGreaterThan(1);
});

test("rows are polled where Grafana has no raw subscriptions", async () => {
  const { Subscriptions } = await import("../../src/exact/subscription");
  (grafana as { subscriptions: unknown }).subscriptions = new Subscriptions(() => undefined);
  const panel = await opened();
  grafana.last = 11;
  await advance(3);
  expect(panel.latest).toEqual(upto(11));
});

test("a second panel shares the subscription and gets its last cursor", async () => {
  grafana.sendsInitial = false;
  await opened();
  grafana.send(packet(10, 14));
  const history = grafana.history();
  grafana.last = 14;
  const second = await opened({ history });
  expect(second.latest).toEqual(upto(14));
  expect(grafana.opened).toBe(1);
});

test("a subscription stays open for ten seconds after its last panel", async () => {
  for (const wait of [9, 11, 0]) {
    const panel = await opened();
    panel.follower.close();
    await advance(wait);
  }
  expect(grafana.opened).toBe(2);
});

test("an ended subscription is reopened after three seconds, then with back-off", async () => {
  await opened();
  grafana.endSubscriptions();
  await advance(2.9);
  expect(grafana.opened).toBe(1);
  await advance(0.2);
  expect(grafana.opened).toBe(2);
  grafana.sendsInitial = false;
  grafana.endSubscriptions();
  await advance(4);
  grafana.endSubscriptions();
  await advance(4);
  expect(grafana.opened).toBe(3);
});

test("rows before the range and beyond the limit are not drawn; the limit is shown in a notice", async () => {
  const few = await opened({ limit: 4 });
  const narrow = await opened({ from: () => 5_000 });
  grafana.send(packet(10, 11));
  await advance(0.1);
  expect(few.numbers).toEqual([upto(10, 7), upto(11, 8)]);
  expect(few.notices).toEqual(['info: Only the newest 4 rows are drawn. Raise "Max data points" to draw more.']);
  expect(narrow.latest).toEqual(upto(11, 5));
  expect(narrow.notices).toEqual([]);
});

test("live rows follow a thinned history, which is loaded again when there are too many of them", async () => {
  grafana.thins = true;
  grafana.last = 100;
  const panel = await opened({ limit: 11 });
  const history = upto(10, 0).map((n) => 10 * n + 1);
  expect(panel.latest).toEqual([...history.slice(0, 10), 100]);
  for (let last = 101; last <= 111; last++) {
    grafana.write(last);
    await advance(0.1);
    expect(panel.latest).toEqual([...history.slice(0, 10), ...upto(last, 100)]);
  }
  expect(grafana.calls).toEqual([]);
  grafana.write(112);
  await advance(0.1);
  expect(grafana.times("load")).toHaveLength(1);
  expect(panel.latest).toEqual([...upto(9, 0).map((n) => 12 * n + 1), 112]);
  grafana.write(113);
  await advance(0.1);
  expect(panel.latest.slice(-3)).toEqual([109, 112, 113]);
  expect(panel.notices).toEqual([]);
});

test("a hidden panel does not thin its rows until it is visible", async () => {
  let isHidden = true;
  grafana.thins = true;
  const panel = await opened({ limit: 5, hidden: () => isHidden });
  for (let last = 11; last <= 40; last++) {
    grafana.write(last);
    await advance(0.1);
  }
  expect(grafana.calls).toEqual([]);
  isHidden = false;
  panel.follower.becameVisible();
  grafana.write(41);
  await advance(0.1);
  expect(grafana.times("load")).toHaveLength(1);
  expect(panel.latest).toEqual([1, 12, 23, 34, 41]);
});

test("a thinned history is not loaded again while few rows are drawn, or too often", async () => {
  grafana.thins = true;
  const narrow = await opened({ limit: 20, from: () => (grafana.last - 15) * 1_000 });
  const fast = await opened({ limit: 5 });
  for (let last = 11; last <= 90; last++) {
    grafana.write(last);
    await advance(0.1);
  }
  expect(narrow.loads).toHaveLength(1);
  expect(narrow.latest).toEqual(upto(90, 75));
  expect(grafana.times("load")).toEqual([0, 2, 6].map((at) => expect.closeTo(at, 0)));
  expect(fast.latest.slice(0, 2)).toEqual([1, expect.any(Number)]);
});

test("rows of a thinned history are cut when it cannot be thinned again in time", async () => {
  grafana.thins = true;
  const panel = await opened({ limit: 5, load: () => new Promise(() => undefined) });
  grafana.write(12);
  grafana.write(61);
  await advance(0.1);
  expect(panel.latest).toEqual([...upto(61, 12)]);
  expect(panel.notices[0]).toMatch(/^info: Only the newest 50 rows are drawn/);
});

test("the stream's status is a notice until it is healthy again", async () => {
  const panel = await opened();
  grafana.send(packet(10, 10, "e", { status: { severity: "warning", text: "reconnecting (3)" } }));
  await advance(0.1);
  expect(panel.notices).toEqual(["warning: reconnecting (3)"]);
  grafana.last = 11;
  grafana.send(packet(10, 11)); // packets with rows carry no status
  await advance(0.1);
  expect(panel.notices).toEqual(["warning: reconnecting (3)"]);
  const second = await opened();
  await advance(0.1);
  expect(second.notices).toEqual(["warning: reconnecting (3)"]);
  grafana.send(packet(11, 11), "connected"); // the initial message of a subscription has no status
  await advance(0.1);
  expect(panel.notices).toEqual(["warning: reconnecting (3)"]);
  grafana.send(packet(11, 11, "e", { status: null }));
  await advance(0.1);
  expect([panel.notices, second.notices]).toEqual([[], []]);
});

test("a panel that is slow to draw is drawn less often and misses no row", async () => {
  const panel = await opened();
  const clock = performance.now.bind(performance);
  let blocked = 0;
  let drawing = 400; // ms in which nothing else runs
  vi.spyOn(performance, "now").mockImplementation(() => clock() + blocked);
  const push = panel.drawn.push.bind(panel.drawn);
  panel.drawn.push = (frame) => {
    blocked += drawing;
    return push(frame);
  };
  const send = async (from: number, to: number) => {
    const before = panel.drawn.length;
    for (let n = from; n <= to; n++) {
      grafana.send(packet(n - 1, n));
      await advance(0.1);
    }
    return panel.drawn.length - before;
  };
  const slow = await send(11, 50);
  expect(slow).toBe(4); // in 4 s of idle time: 1.2 s after each draw, instead of 0.1 s
  drawing = 0;
  await advance(1);
  expect(panel.latest).toEqual(upto(50));
  expect(await send(51, 70)).toBe(20);
  vi.restoreAllMocks();
});

test("a hidden panel keeps its rows and draws them all when it becomes visible", async () => {
  let hidden = false;
  const panel = await opened({ hidden: () => hidden });
  hidden = true;
  for (let n = 10; n < 40; n++) {
    grafana.send(packet(n, n + 1));
    await advance(1);
  }
  expect(panel.numbers).toHaveLength(1);
  hidden = false;
  panel.follower.becameVisible();
  await advance(0.1);
  expect(panel.numbers.slice(1)).toEqual([upto(40)]);
});

test("many packets in a short time are few frames", async () => {
  const panel = await opened();
  for (let n = 10; n < 1010; n++) {
    grafana.send(packet(n, n + 1));
    await advance(0.001);
  }
  await advance(0.1);
  expect(panel.numbers.length).toBeLessThan(30);
  expect(panel.latest).toEqual(upto(1010));
});

test("other columns cause a reload and are never drawn", async () => {
  const panel = await opened();
  grafana.last = 11;
  grafana.send({ cursor: { epoch: "e", prev: 10, last: 11 }, data: { values: [[11_000]] } });
  await advance(0.1);
  expect(grafana.times("load")).toHaveLength(1);
  expect(panel.latest).toEqual(upto(11));
});

test("infinities and NaN are restored without changing the shared message", async () => {
  const panel = await opened();
  const message = { cursor: { epoch: "e", prev: 10, last: 12 }, data: { values: [[1, 2], [null, null], ["e", "e"]], entities: [null, { NaN: [0], Inf: [1] }] } };
  grafana.send(message);
  await advance(0.1);
  expect(panel.latest.slice(-2)).toEqual([NaN, Infinity]);
  expect(message.data.values[1]).toEqual([null, null]);
});

test("a closed follower makes no calls and draws nothing", async () => {
  const panel = await opened();
  panel.follower.close();
  grafana.send(packet(15, 16));
  await advance(30);
  expect(grafana.calls).toEqual([]);
  expect(panel.numbers).toHaveLength(1);
  expect(vi.getTimerCount()).toBe(0);
});

test("a status without a cursor is a notice, which the first heartbeat without a status removes", async () => {
  const panel = await opened();
  grafana.send({ status: { severity: "error", text: "no such topic" } });
  await advance(0.1);
  expect(panel.notices).toEqual(["error: no such topic"]);
  grafana.send(packet(10, 10));
  await advance(0.1);
  expect(panel.notices).toEqual([]);
});

test("without a socket the stream's status comes with the fetched rows", async () => {
  const panel = await opened();
  grafana.status = { severity: "warning", text: "reconnecting (1)" };
  grafana.send(undefined, "connecting");
  await advance(3);
  expect(panel.notices).toContain("warning: reconnecting (1)");
  grafana.status = undefined;
  await advance(3);
  expect(panel.notices).not.toContain("warning: reconnecting (1)");
});
