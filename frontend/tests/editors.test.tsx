import { fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import React from "react";
import { beforeEach, describe, expect, test, vi } from "vitest";

import type { PluginDocument } from "../src/forms/document";
import { StreamDataSource } from "../src/datasource";
import { ConfigEditor } from "../src/editors/ConfigEditor";
import { QueryEditor } from "../src/editors/QueryEditor";
import { forgetDocuments } from "../src/editors/pluginDocument";
import { setDataSourceSrv, setTemplateSrv } from "../stubs/grafana-runtime";
import { KINDS } from "./kinds";

const ID = "some-datasource";
let fetched: ReturnType<typeof vi.fn>;

function serve(document: unknown, status = 200) {
  fetched = vi.fn(async () => ({ ok: status === 200, status, json: async () => document }));
  vi.stubGlobal("fetch", fetched);
}

beforeEach(() => {
  forgetDocuments();
  serve(KINDS);
  setTemplateSrv({ getVariables: () => [{ name: "site" }], replace: (text = "") => text });
  setDataSourceSrv({ getInstanceSettings: () => ({ jsonData: {} }) as any });
});

/** The settings as Grafana's page keeps them; `saved()` is what would be saved. */
async function openSettings(options: Record<string, unknown> = {}) {
  let saved: any;
  const Page = () => {
    const [state, setState] = React.useState<any>({ type: ID, uid: "u", jsonData: {}, secureJsonFields: {}, readOnly: false, ...options });
    saved = state;
    return <ConfigEditor options={state} onOptionsChange={setState} />;
  };
  const { container } = render(<Page />);
  await waitFor(() => expect(container.childElementCount).toBeGreaterThan(0));
  return { saved: () => saved, user: userEvent.setup() };
}

async function openQuery(query: Record<string, unknown> = {}) {
  let saved: any;
  const run = vi.fn();
  const datasource = new StreamDataSource({ id: 1, uid: "u", type: ID, name: "n", jsonData: {}, meta: {} } as any);
  datasource.getResource = vi.fn(async () => ["berlin", "bern"]);
  const Page = () => {
    const [state, setState] = React.useState<any>({ refId: "A", datasource: { uid: "u" }, ...query });
    saved = state;
    return <QueryEditor datasource={datasource} query={state} onChange={setState} onRunQuery={run} />;
  };
  const { container } = render(<Page />);
  await waitFor(() => expect(container.childElementCount).toBeGreaterThan(0));
  return { saved: () => saved, run, datasource, user: userEvent.setup() };
}

const box = (label: string) => screen.getByLabelText<HTMLInputElement>(label, { selector: "input, select, textarea" });

describe("the config editor", () => {
  test("asks for the plugin's own schema, once for a page, below the path that Grafana is served under", async () => {
    await openSettings();
    await openSettings();
    expect(fetched).toHaveBeenCalledTimes(1);
    expect(fetched.mock.calls[0]![0]).toBe(`public/plugins/${ID}/schema.json`);
  });

  test("writes what is filled in, and leaves keys that it does not know", async () => {
    const { saved, user } = await openSettings({ jsonData: { manageAlerts: true } });
    await user.type(box("URL"), "mqtt://x");
    await user.type(box("Keep alive"), "30");
    await user.click(box("Verify"));
    await user.selectOptions(box("QoS"), "at most once");
    expect(saved().jsonData).toEqual({ manageAlerts: true, url: "mqtt://x", keepAlive: 30, verify: false, qos: "at most once" });
  });

  test("an emptied box is the default again", async () => {
    const { saved, user } = await openSettings({ jsonData: { keepAlive: 5 } });
    await user.clear(box("Keep alive"));
    expect(saved().jsonData).toEqual({});
    expect(box("Keep alive").placeholder).toBe("60");
  });

  test("a number is whole once the box is left, whatever is in it on the way", async () => {
    const { saved, user } = await openSettings();
    await user.type(box("Wait"), "1.");
    expect(saved().jsonData.wait).toBe("1.");
    await user.tab();
    expect(saved().jsonData.wait).toBe(1);
  });

  test("a wrong value stays and is explained", async () => {
    const { saved, user } = await openSettings();
    await user.type(box("Keep alive"), "often");
    expect(saved().jsonData.keepAlive).toBe("often");
    expect(screen.getByText('"often" is not a whole number')).toBeTruthy();
  });

  test("a field that is needed says so when it was left empty, not before", async () => {
    const { user } = await openSettings();
    expect(screen.queryByText("URL is needed")).toBeNull();
    await user.click(box("URL"));
    await user.tab();
    expect(screen.getByText("URL is needed")).toBeTruthy();
  });

  test("a list shows its default, grows, shrinks, and may be emptied", async () => {
    const { saved, user } = await openSettings();
    expect(box("Topics 1").value).toBe("sensors/#");
    await user.click(screen.getByRole("button", { name: "Add to Topics" }));
    await user.type(box("Topics 2"), "lab");
    expect(saved().jsonData.topics).toEqual(["sensors/#", "lab"]);
    await user.click(screen.getByRole("button", { name: "Remove Topics 1" }));
    await user.click(screen.getByRole("button", { name: "Remove Topics 1" }));
    expect(saved().jsonData.topics).toEqual([]);
  });

  test("a list that is full takes no more", async () => {
    const { user } = await openSettings();
    await user.click(screen.getByRole("button", { name: "Add to Renamed" }));
    expect(screen.queryByRole("button", { name: "Add to Renamed" })).toBeNull();
  });

  test("a table keeps a name while it is typed, also when it is there twice", async () => {
    const { saved, user } = await openSettings({ jsonData: { labels: { a: "1" } } });
    await user.click(screen.getByRole("button", { name: "Add to Labels" }));
    await user.type(box("Labels 2: name"), "a");
    expect(box("Labels 2: name").getAttribute("aria-invalid")).toBe("true");
    await user.type(box("Labels 2: name"), "b");
    await user.type(box("Labels 2: value"), "2");
    expect(saved().jsonData.labels).toEqual({ a: "1", ab: "2" });
  });

  test("a tagged union shows the fields of its tag, and brings back what was filled in", async () => {
    const { saved, user } = await openSettings();
    expect(screen.queryByLabelText("User")).toBeNull();
    await user.selectOptions(box("Login"), "password");
    await user.type(box("User"), "me");
    await user.selectOptions(box("Login"), "anonymous");
    expect(saved().jsonData.login).toEqual({ method: "anonymous" });
    await user.selectOptions(box("Login"), "password");
    expect(saved().jsonData.login).toEqual({ method: "password", user: "me" });
  });

  test("an optional group is switched on with what it needs, and off without a trace", async () => {
    const { saved, user } = await openSettings();
    await user.click(box("Proxy"));
    expect(saved().jsonData.proxy).toEqual({ kind: "http" });
    await user.type(box("Host"), "p");
    expect(saved().jsonData.proxy).toEqual({ kind: "http", host: "p" });
    await user.click(box("Proxy"));
    expect(saved().jsonData).toEqual({});
  });

  test("what no box fits is edited as JSON, and kept while it is none", async () => {
    const { saved } = await openSettings();
    fireEvent.change(box("Odd"), { target: { value: "[1," } });
    expect(saved().jsonData.odd).toBeUndefined();
    expect(box("Odd").value).toBe("[1,");
    fireEvent.change(box("Odd"), { target: { value: "[1,2]" } });
    expect(saved().jsonData.odd).toEqual([1, 2]);
  });

  test("a secret goes into secureJsonData only", async () => {
    const { saved, user } = await openSettings();
    await user.type(box("Password"), "abc");
    expect(saved().secureJsonData).toEqual({ password: "abc" });
    expect(saved().jsonData).toEqual({});
  });

  test("a saved secret is not shown, stays when others change, and is replaced after a reset", async () => {
    const { saved, user } = await openSettings({ secureJsonFields: { password: true, other: true } });
    expect(box("Password").value).toBe("configured");
    await user.type(box("URL"), "mqtt://x");
    expect(saved().secureJsonFields).toEqual({ password: true, other: true });
    expect(saved().secureJsonData).toBeUndefined();
    await user.click(screen.getByRole("button", { name: "Reset" }));
    expect(saved()).toMatchObject({ secureJsonFields: { password: false, other: true }, secureJsonData: { password: "" } });
    await user.type(box("Password"), "new");
    expect(saved().secureJsonData).toEqual({ password: "new" });
  });

  test("a provisioned data source is shown and cannot be changed", async () => {
    await openSettings({ readOnly: true, jsonData: { topics: ["a"] } });
    expect(box("URL").disabled && box("QoS").disabled && box("Password").disabled).toBe(true);
    expect(screen.queryByRole("button", { name: "Add to Topics" })).toBeNull();
  });

  test("settings of other types than the class has open, and are explained", async () => {
    const odd = { url: 5, keepAlive: "x", verify: "no", qos: 1, topics: "a", labels: [1], login: "me", retries: 3, proxy: true, renamed: {}, odd: null };
    await openSettings({ jsonData: odd });
    expect(box("Verify").value).toBe("on");
    expect(screen.getByText("5 is no text")).toBeTruthy();
    expect(screen.getByText('"no" is neither true nor false')).toBeTruthy();
    expect(screen.getByText('"a" is no list')).toBeTruthy();
  });
});

describe("several sources behind one plugin", () => {
  const SEVERAL: PluginDocument = {
    version: 1,
    by: "source",
    sources: [
      { name: "demo", help: "A walk.", settings: { type: "object", properties: {} }, secrets: [], queries: [] },
      { name: "file", settings: { type: "object", properties: { directory: { type: "string" } }, required: ["directory"] }, secrets: [], queries: [] },
      { name: "lost", error: "it needs the package x" },
    ],
  };

  test("one is picked, and its fields follow", async () => {
    serve(SEVERAL);
    const { saved, user } = await openSettings();
    expect(screen.getByText("There is nothing to set.")).toBeTruthy();
    await user.selectOptions(box("Source"), "file");
    await user.type(box("Directory"), "/logs");
    expect(saved().jsonData).toEqual({ source: "file", directory: "/logs" });
  });

  test("one that cannot be used says why, one that is unknown is named", async () => {
    serve(SEVERAL);
    await openSettings({ jsonData: { source: "lost" } });
    expect(screen.getByText("lost cannot be used: it needs the package x")).toBeTruthy();
    document.body.innerHTML = "";
    await openSettings({ jsonData: { source: "other" } });
    expect(screen.getByText("other is none of demo, file, lost")).toBeTruthy();
  });
});

describe("without a schema", () => {
  test.each([
    ["is not there", undefined, 404, "There are no forms: the plugin's schema.json cannot be had (HTTP 404)"],
    ["is of another version", { ...KINDS, version: 9 }, 200, "There are no forms: the plugin's schema.json cannot be used: its version is 9; this frontend knows 1"],
  ])("that %s, settings and queries are edited as JSON", async (_, document, status, said) => {
    serve(document, status);
    const settings = await openSettings({ jsonData: { a: 1 } });
    expect(screen.getByText(said)).toBeTruthy();
    fireEvent.change(screen.getByLabelText("Settings (jsonData)", { selector: "textarea" }), { target: { value: '{"a": 2}' } });
    expect(settings.saved().jsonData).toEqual({ a: 2 });
    const query = await openQuery({ queryType: "x", hide: true });
    fireEvent.change(screen.getByLabelText("Query as JSON", { selector: "textarea" }), { target: { value: '{"queryType": "y"}' } });
    expect(query.saved()).toEqual({ refId: "A", datasource: { uid: "u" }, hide: true, queryType: "y" });
    expect(query.run).not.toHaveBeenCalled();
  });
});

describe("the query editor", () => {
  test("a new query follows the first stream that needs nothing, and shows its rows", async () => {
    const { saved, run } = await openQuery();
    await waitFor(() => expect(saved().queryType).toBe("alive"));
    expect(run).toHaveBeenCalledTimes(1);
  });

  test("a saved query is left as it is when it is opened", async () => {
    const query = { queryType: "topic", site: 5, gone: [1], withStreaming: false };
    const { saved, run } = await openQuery(query);
    expect(saved()).toEqual({ refId: "A", datasource: { uid: "u" }, ...query });
    expect(run).not.toHaveBeenCalled();
  });

  test("fields, streaming, join and alias are written, Grafana's own keys are left", async () => {
    const { saved, user } = await openQuery({ queryType: "topic", hide: true, key: "k" });
    await user.type(box("Site"), "berlin");
    await user.type(box("Rate"), "5");
    await user.type(box("Alias"), "Roof $site");
    await user.click(screen.getByLabelText("Exact"));
    expect(saved()).toEqual({
      refId: "A",
      datasource: { uid: "u" },
      key: "k",
      hide: true,
      queryType: "topic",
      site: "berlin",
      hz: 5,
      alias: "Roof $site",
      exact: true,
    });
    await user.click(box("With Streaming"));
    expect(saved().withStreaming).toBe(false);
    expect(screen.getByLabelText<HTMLInputElement>("Exact").disabled).toBe(true);
  });

  test("it runs when a box is left or a choice made, and only when something has changed", async () => {
    const { run, user } = await openQuery({ queryType: "topic" });
    await user.click(box("Rate"));
    await user.tab();
    expect(run).toHaveBeenCalledTimes(0);
    await user.type(box("Rate"), "12");
    expect(run).toHaveBeenCalledTimes(0);
    await user.keyboard("{Enter}");
    expect(run).toHaveBeenCalledTimes(1);
    await user.tab();
    expect(run).toHaveBeenCalledTimes(1);
    await user.selectOptions(box("Stream"), "compare");
    expect(run).toHaveBeenCalledTimes(2);
    await user.click(box("Strict"));
    expect(run).toHaveBeenCalledTimes(3);
  });

  test("a template variable goes into any box", async () => {
    const { saved, user } = await openQuery({ queryType: "topic" });
    await user.type(box("Rate"), "$rate");
    await user.tab();
    expect(saved().hz).toBe("$rate");
    expect(screen.queryByRole("alert")).toBeNull();
    await user.selectOptions(box("Stream"), "compare");
    await user.selectOptions(box("How"), "$site");
    expect(saved().how).toBe("$site");
  });

  test("another stream keeps the fields of the first, in case one comes back", async () => {
    const { saved, user } = await openQuery({ queryType: "topic", site: "berlin" });
    await user.selectOptions(box("Stream"), "alive");
    expect(screen.queryByLabelText("Site")).toBeNull();
    await user.selectOptions(box("Stream"), "topic");
    expect(box("Site").value).toBe("berlin");
    expect(saved().site).toBe("berlin");
  });

  test("a stream that is gone is named, and its query is still there to be read", async () => {
    const { saved } = await openQuery({ queryType: "was", old: 1 });
    expect(screen.getByText("this data source has no stream was")).toBeTruthy();
    expect(screen.getByLabelText<HTMLTextAreaElement>("Query as JSON", { selector: "textarea" }).value).toContain('"old"');
    expect(saved().old).toBe(1);
  });

  test.each([
    { queryType: "topic", site: 5, file: { a: 1 }, hz: "fast", withStreaming: "yes", exact: 0, alias: 3 },
    { queryType: "compare", how: 7, strict: "no" },
    { queryType: 7 },
    { queryType: null, alias: null },
  ])("an old query opens: %j", async (query) => {
    await openQuery(query);
    expect(box("Stream")).toBeTruthy();
  });

  test("values are suggested as one types, with the other fields, and any text may stay", async () => {
    const { saved, user, datasource, run } = await openQuery({ queryType: "topic", hz: 5 });
    await user.type(box("Site"), "ber");
    await waitFor(() =>
      expect(datasource.getResource).toHaveBeenCalledWith(
        "forms/suggest",
        { stream: "topic", field: "site", typed: "ber", values: '{"hz":5}' },
        { showErrorAlert: false }
      )
    );
    const list = await screen.findByRole("listbox");
    expect(within(list).getAllByRole("option").map((each) => each.textContent)).toEqual(["berlin", "bern"]);
    await user.keyboard("{ArrowDown}{ArrowDown}{Enter}");
    expect(saved().site).toBe("bern");
    expect(run).toHaveBeenCalledTimes(1);
    await user.type(box("Site"), "-elsewhere");
    await user.tab();
    expect(saved().site).toBe("bern-elsewhere");
  });

  test("a backend that cannot suggest says why, where the values would be", async () => {
    const { user, datasource } = await openQuery({ queryType: "topic" });
    datasource.getResource = vi.fn(async () => Promise.reject({ data: { message: "the broker is away" } }));
    await user.click(box("Site"));
    expect(await screen.findByText("the broker is away")).toBeTruthy();
  });

  test("an answer that comes late is not shown", async () => {
    const { user, datasource } = await openQuery({ queryType: "topic" });
    const answers: Array<(values: string[]) => void> = [];
    datasource.getResource = vi.fn(() => new Promise<string[]>((resolve) => answers.push(resolve)));
    await user.click(box("Site"));
    await user.type(box("Site"), "b");
    await waitFor(() => expect(answers).toHaveLength(2));
    answers[1]!(["berlin"]);
    await screen.findByText("berlin");
    answers[0]!(["paris"]);
    await Promise.resolve();
    expect(screen.queryByText("paris")).toBeNull();
  });
});
