import { Subject, firstValueFrom, of } from "rxjs";
import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { DataSourceWithBackend, config, setGrafanaLiveSrv, setTemplateSrv } from "@grafana/runtime";
import { StreamDataSource } from "../src/datasource";
import { KEEP, REFRESH } from "../src/exact/query";

const SETTINGS: any = { id: 1, uid: "u", name: "n", type: "t", meta: {}, jsonData: {} };
const CURSOR = { channel: "ds/u/x/log/a", epoch: "e", last: 3 };

const frame = (cursor?: object): any => ({
  refId: "A",
  meta: { custom: cursor ? { cursor } : {}, notices: [{ severity: "info", text: "the backend's own" }] },
  fields: [
    { name: "time", type: "time", config: {}, values: [1, 2, 3] },
    { name: "n", type: "number", config: { unit: "s" }, values: { toArray: () => [1, 2, 3] } },
  ],
  length: 3,
});

const request = (targets: any[], more: object = {}): any => ({
  requestId: "Q1",
  targets: targets.map((target, index) => ({ refId: "ABC"[index], ...target })),
  range: { from: 0, to: 1, raw: { from: "now-60s", to: "now" } },
  timezone: "browser",
  maxDataPoints: 100,
  scopedVars: {},
  ...more,
});

let asked: any[];
let answer: any;
let source: StreamDataSource;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000 });
  asked = [];
  answer = { data: [frame(CURSOR)] };
  source = new StreamDataSource(SETTINGS);
  vi.spyOn(DataSourceWithBackend.prototype, "query").mockImplementation((each) => {
    asked.push(each);
    return of(answer);
  });
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  delete config.publicDashboardAccessToken;
  setTemplateSrv({ getVariables: () => [], replace: (text = "") => text });
});

function run(request: any) {
  const packets: any[] = [];
  const subscription = source.query(request).subscribe((packet) => packets.push(packet));
  return { packets, subscription };
}

test("a test that succeeds keeps its details, which the page of settings shows", async () => {
  const health = { status: "OK", message: "connected", details: { verboseMessage: "log can: history" } };
  vi.spyOn(DataSourceWithBackend.prototype, "callHealthCheck").mockResolvedValue(health as any);
  expect(await source.testDatasource()).toMatchObject({
    status: "success",
    message: "connected",
    details: health.details,
  });
});

test("a test that fails keeps Grafana's error", async () => {
  const health = { status: "ERROR", message: "refused", details: { verboseMessage: "nothing" } };
  vi.spyOn(DataSourceWithBackend.prototype, "callHealthCheck").mockResolvedValue(health as any);
  await expect(source.testDatasource()).rejects.toMatchObject({ message: "refused" });
});

test("stock queries go out in one request of Grafana's own class", () => {
  run(request([{}, {}]));
  expect(asked.map(({ requestId, targets }) => [requestId, targets.length])).toEqual([["Q1", 2]]);
});

test("stock panels draw live rows after a thinned history, up to ten times its rows", () => {
  const rows = (custom?: object, points?: number) =>
    source.streamOptionsProvider(request([], { maxDataPoints: points }), { ...frame(), meta: { custom } }).maxLength;
  expect([rows({ thinned: 10 }, 100), rows({ thinned: 10 }), rows({}, 100), rows()]).toEqual([1_000, 5_000, 100, 500]);
});

test("each exact query is a request with its own id", async () => {
  const { subscription } = run(request([{ exact: true }, {}, { exact: true }]));
  await vi.advanceTimersByTimeAsync(0);
  expect(asked.map(({ requestId, targets }) => [requestId, targets[0].refId]).sort()).toEqual([
    ["Q1", "B"],
    ["Q1-A-0", "A"],
    ["Q1-C-0", "C"],
  ]);
  subscription.unsubscribe();
});

test("exact queries keep their order, whichever is answered first", async () => {
  const { packets, subscription } = run(request([{ exact: true }, { exact: true }]));
  expect(packets.map(({ key, state, data }) => [key, state, data])).toEqual([
    ["query-A-0", "Loading", []],
    ["query-B-0", "Loading", []],
  ]);
  await vi.advanceTimersByTimeAsync(0);
  expect(packets.slice(2).map(({ key, state }) => [key, state]).sort()).toEqual([
    ["query-A-0", "Streaming"],
    ["query-B-0", "Streaming"],
  ]);
  subscription.unsubscribe();
});

test("a hidden query is not sent", async () => {
  expect(await firstValueFrom(source.query(request([{ hide: true }])))).toEqual({ data: [] });
  expect(asked).toEqual([]);
});

test.each([
  ["a mixed panel", request([{ exact: true }], { requestId: "mixed-0-Q1" })],
  ["an annotation", request([{ exact: true, refId: "Anno" }])],
  ["a range in the past", request([{ exact: true }], { range: { raw: { from: "now-60s", to: "now-30s" } } })],
  ["an absolute range", request([{ exact: true }], { range: { raw: { from: 0, to: 1 } } })],
])("%s is answered without a stream", (_, given) => {
  run(given);
  expect(asked.map(({ targets }) => targets[0].withStreaming)).toEqual([false]);
});

test("a public dashboard is answered without a stream", () => {
  config.publicDashboardAccessToken = "abc";
  run(request([{ exact: true }]));
  expect(asked[0].targets[0].withStreaming).toBe(false);
});

test("a frame keeps its field config and the backend's notices under one key", async () => {
  const { packets, subscription } = run(request([{ exact: true }]));
  await vi.advanceTimersByTimeAsync(0);
  const [{ key, state, data }] = packets;
  expect([key, state]).toEqual(["query-A-0", "Streaming"]);
  expect(data[0].fields[1]).toMatchObject({ name: "n", config: { unit: "s" } });
  expect(data[0].meta.notices).toEqual([{ severity: "info", text: "the backend's own" }]);
  subscription.unsubscribe();
});

test("rows that are not drawn are shown by a frame of annotations, which the alias does not rename", async () => {
  const { packets, subscription } = run(request([{ exact: true, alias: "a" }], { maxDataPoints: 3 }));
  await vi.advanceTimersByTimeAsync(0);
  const [rows, annotations] = packets[0].data;
  expect([rows.refId, annotations.refId, annotations.meta]).toEqual(["A", "A", { dataTopic: "annotations" }]);
  const values = Object.fromEntries(annotations.fields.map((field: any) => [field.name, field.values]));
  expect(values).toEqual({
    time: [1_000 - 60_000],
    timeEnd: [1],
    isRegion: [true],
    text: ['Only the newest 3 rows are drawn. Raise "Max data points" to draw more.'],
    color: ["orange"],
  });
  expect(rows.fields[1].config.displayNameFromDS).toBe("a");
  expect(annotations.fields.every(({ config }: any) => !config.displayNameFromDS)).toBe(true);
  subscription.unsubscribe();
});

test("frames without a cursor are returned with those that are followed; without followed frames the query ends", async () => {
  answer = { data: [frame(CURSOR), frame()] };
  const both = run(request([{ exact: true }]));
  await vi.advanceTimersByTimeAsync(0);
  expect(both.packets.map(({ key }) => key).sort()).toEqual(["query-A-0", "query-A-fixed"]);
  both.subscription.unsubscribe();
  answer = { data: [frame()] };
  const fixed = run(request([{ exact: true }]));
  await vi.advanceTimersByTimeAsync(0);
  expect([fixed.packets[0].state, fixed.subscription.closed]).toEqual(["Done", true]);
});

/** Empties a packet's arrays, as Grafana 13.1 and later do with frames that they no longer draw. */
const empty = ({ data }: any) => data.forEach(({ fields }: any) => fields.forEach((field: any) => (field.values.length = 0)));

const drawn = ({ packets }: any) => packets.map(({ key, data: [{ fields }] }: any) => [key, fields[1].values]);

test("a panel that comes back draws its rows and asks nothing, also if Grafana has emptied its frames", async () => {
  answer = { data: [frame(CURSOR), frame()] };
  const before = run(request([{ exact: true, file: "kept" }]));
  await vi.advanceTimersByTimeAsync(0);
  before.subscription.unsubscribe();
  before.packets.forEach(empty);
  for (const away of [REFRESH, 20_000, KEEP - 1]) {
    await vi.advanceTimersByTimeAsync(away);
    const after = run(request([{ exact: true, file: "kept" }]));
    expect(after.packets).toEqual([]); // Grafana would subscribe twice
    await vi.advanceTimersByTimeAsync(0);
    expect(drawn(after).sort()).toEqual([["query-A-0", [1, 2, 3]], ["query-A-fixed", [1, 2, 3]]]);
    after.subscription.unsubscribe();
    after.packets.forEach(empty);
  }
  expect(asked.length).toBe(1);
  expect(before.packets.length).toBe(2); // nothing is drawn while it is away
});

test.each([
  ["that is refreshed", REFRESH - 1, {}],
  ["that comes back later", KEEP, {}],
  ["with another query", 1_000, { file: "other" }],
])("a panel %s loads its history again", async (_, away, changed) => {
  const query = { exact: true, file: `away ${away}` };
  const before = run(request([query]));
  await vi.advanceTimersByTimeAsync(0);
  before.subscription.unsubscribe();
  await vi.advanceTimersByTimeAsync(away);
  const after = run(request([{ ...query, ...changed }]));
  await vi.advanceTimersByTimeAsync(0);
  expect(asked.length).toBe(2);
  after.subscription.unsubscribe();
});

test("a panel whose range changes keeps the rows that its history no longer has", async () => {
  const query = [{ exact: true, file: "range" }];
  const before = run(request(query));
  await vi.advanceTimersByTimeAsync(0);
  before.subscription.unsubscribe();
  answer = { data: [{ ...frame({ ...CURSOR, epoch: "after a restart" }), length: 1 }] };
  answer.data[0].fields.forEach((field: any) => (field.values = [3]));
  const after = run(request(query, { range: { from: 0, to: 1, raw: { from: "now-30s", to: "now" } } }));
  await vi.advanceTimersByTimeAsync(0);
  expect(drawn(after)).toEqual([["query-A-0", [1, 2, 3]]]);
  after.subscription.unsubscribe();
});

test("another value of a variable loads the history again", async () => {
  const given = request([{ exact: true, file: "$x" }]);
  for (const value of ["one", "two"]) {
    setTemplateSrv({ getVariables: () => [], replace: (text = "") => text.replace("$x", value) });
    run(given).subscription.unsubscribe();
    await vi.advanceTimersByTimeAsync(1_000);
  }
  expect(asked.length).toBe(2);
});

test.each([{ exact: true }, { exact: true, alias: "a" }, {}, { alias: "a" }])(
  "Grafana does not empty the arrays of the frames of %o",
  async (query) => {
    answer = { data: [frame(CURSOR), frame()] };
    const { packets, subscription } = run(request([query], { maxDataPoints: 3 }));
    await vi.advanceTimersByTimeAsync(0);
    const frames = packets.flatMap(({ data }) => data);
    expect(frames.length).toBeGreaterThan(1);
    expect(frames.filter((each) => !Object.hasOwn(each, "appendRow"))).toEqual([]);
    subscription.unsubscribe();
  }
);

test("a method of frames of older versions stays", () => {
  class Mutable {
    fields = [];
    appendRow() {}
  }
  answer = { data: [new Mutable()] };
  expect(run(request([{}])).packets[0].data[0].appendRow).toBeTypeOf("function");
});

test("an error ends the query; an empty answer counts as unreachable and is requested again", async () => {
  answer = { data: [], error: { message: "no such file", status: 404 } };
  const refused = run(request([{ exact: true }]));
  await vi.advanceTimersByTimeAsync(60_000);
  expect(refused.packets.map(({ error }) => error.message)).toEqual(["no such file"]);
  expect(refused.subscription.closed).toBe(true);

  answer = { data: [] };
  const unreachable = run(request([{ exact: true }]));
  await vi.advanceTimersByTimeAsync(1_500);
  answer = { data: [frame(CURSOR)] };
  await vi.advanceTimersByTimeAsync(2_000);
  expect(unreachable.packets.map(({ state, error }) => error?.message ?? state)).toEqual([
    "Grafana cannot be reached",
    "Grafana cannot be reached",
    "Streaming",
  ]);
  unreachable.subscription.unsubscribe();
});

test("rows are fetched by the channel's path, without error alerts", async () => {
  setGrafanaLiveSrv(undefined);
  const page = { cursor: { epoch: "e", prev: 3, last: 4 }, data: { values: [[4], [4]] } };
  const rows = vi.spyOn(source, "getResource").mockResolvedValue(page);
  const { packets, subscription } = run(request([{ exact: true }]));
  await vi.advanceTimersByTimeAsync(2_500);
  expect(rows.mock.calls[0]).toEqual(["replay/rows", { path: "x/log/a", after: 3 }, { showErrorAlert: false, hideFromInspector: true }]);
  expect(packets[packets.length - 1].data[0].fields[1].values).toEqual([1, 2, 3, 4]);
  subscription.unsubscribe();
});

test("variables are replaced in strings at any depth, but not in Grafana's own fields", () => {
  setTemplateSrv({ getVariables: () => [], replace: (text = "") => text.replace("$x", "7") });
  const query: any = { refId: "$x", queryType: "q", file: "$x", deep: { list: ["a$x", 1, null] }, exact: true };
  expect(source.applyTemplateVariables(query, {})).toMatchObject({
    ...query,
    file: "7",
    deep: { list: ["a7", 1, null] },
  });
});

test("an alias names one series; several also get their column and labels", async () => {
  const two = { ...frame(), fields: [...frame().fields, { name: "m", type: "number", config: {}, labels: { id: "k" }, values: [] }] };
  answer = { data: [frame()] };
  const names = async () => {
    const { data } = await firstValueFrom(source.query(request([{ alias: "Hall" }])));
    return data[0].fields.map(({ config: { displayNameFromDS } }) => displayNameFromDS);
  };
  expect(await names()).toEqual([undefined, "Hall"]);
  answer = { data: [two] };
  expect(await names()).toEqual([undefined, "Hall n", "Hall m k"]);
});

test("stock queries are drawn in the order asked, whichever is answered first and whatever refId live frames have", () => {
  const answers: Record<string, Subject<any>> = {};
  vi.mocked(DataSourceWithBackend.prototype.query).mockImplementation(
    ({ targets }) => (answers[targets[0].refId] = new Subject<any>())
  );
  const { packets } = run(request([{ alias: "a" }, {}, { alias: "c" }, { refId: "D" }]));
  const drawn: Record<string, any> = {}; // as Grafana keeps them
  const live = (query: string, key: string, refId?: string) => answers[query].next({ key, data: [{ ...frame(), refId }] });
  live("C", "xstr/1", "A"); // joins a channel whose first subscriber was another query
  live("B", "xstr/2", "B");
  live("B", "xstr/3", "D");
  live("A", "xstr/4");
  live("A", "xstr/5");
  live("B", "xstr/2"); // a packet with a schema has come
  packets.forEach((packet) => (drawn[packet.key] = packet.data));
  expect(Object.entries(drawn).map(([key, data]) => [key, data[0].refId])).toEqual([
    ["query-A-0", "A"],
    ["query-B-0", "B"],
    ["query-C-0", "C"],
    ["query-D-0", "D"],
    ["query-A-1", "A"],
  ]);
});

test("answers without live frames keep their refIds", () => {
  answer = { data: [frame(), { ...frame(), refId: "B" }] };
  const { packets } = run(request([{}, {}]));
  expect(packets.map(({ key, data }) => [key, data.map(({ refId }: any) => refId)])).toEqual([["query-A-0", ["A", "B"]]]);
});
