import { fireEvent, render, screen, waitFor, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import React from "react";
import { beforeEach, describe, expect, test, vi } from "vitest";

import type { DataQuery } from "@grafana/data";

import { StreamDataSource } from "../src/datasource";
import { ConfigEditor } from "../src/editors/ConfigEditor";
import { QueryEditor } from "../src/editors/QueryEditor";
import { clearSchemaCache } from "../src/editors/usePluginSchema";
import type { PluginSchema } from "../src/forms/pluginSchema";
import { setDataSourceSrv, setTemplateSrv } from "../stubs/grafana-runtime";
import { KINDS } from "./kinds";

const ID = "some-datasource";
let fetched: ReturnType<typeof vi.fn>;

function serve(schema: unknown, status = 200) {
  fetched = vi.fn(async () => ({ ok: status === 200, status, json: async () => schema }));
  vi.stubGlobal("fetch", fetched);
}

beforeEach(() => {
  clearSchemaCache();
  serve(KINDS);
  setTemplateSrv({ getVariables: () => [{ name: "site" }], replace: (text = "") => text });
  setDataSourceSrv({ getInstanceSettings: () => ({ jsonData: {} }) as any });
});

/** The settings page; `saved()` is what it would save. */
async function openSettings(options: Record<string, unknown> = {}) {
  let saved: any;
  const Page = () => {
    const [state, setState] = React.useState<any>({
      type: ID,
      uid: "u",
      jsonData: {},
      secureJsonFields: {},
      readOnly: false,
      ...options,
    });
    saved = state;
    return <ConfigEditor options={state} onOptionsChange={setState} />;
  };
  const { container } = render(<Page />);
  await waitFor(() => expect(container.childElementCount).toBeGreaterThan(0));
  return { saved: () => saved, user: userEvent.setup() };
}

async function openQuery(query: Record<string, unknown> = {}, queries?: DataQuery[]) {
  let saved: any;
  const run = vi.fn();
  const datasource = new StreamDataSource({
    id: 1,
    uid: "u",
    type: ID,
    name: "n",
    jsonData: {},
    meta: {},
  } as any);
  datasource.getResource = vi.fn(async () => ["berlin", "bern"]);
  const Page = () => {
    const [state, setState] = React.useState<any>({ refId: "A", datasource: { uid: "u" }, ...query });
    saved = state;
    const props = { datasource, query: state, queries, onChange: setState, onRunQuery: run };
    return <QueryEditor {...props} />;
  };
  const { container } = render(<Page />);
  await waitFor(() => expect(container.childElementCount).toBeGreaterThan(0));
  return { saved: () => saved, run, datasource, user: userEvent.setup() };
}

const input = (label: string) =>
  screen.getByLabelText<HTMLInputElement>(label, { selector: "input, select, textarea" });

describe("the config editor", () => {
  test("loads the plugin's schema once, relative to the page's base", async () => {
    await openSettings();
    await openSettings();
    expect(fetched).toHaveBeenCalledTimes(1);
    expect(fetched.mock.calls[0]![0]).toBe(`public/plugins/${ID}/schema.json`);
    // an upgraded plugin's file may have the same date: a browser must not ask whether it has changed
    expect(fetched.mock.calls[0]![1]?.cache).toBe("reload");
  });

  test("writes filled in values and keeps unknown keys", async () => {
    const { saved, user } = await openSettings({ jsonData: { manageAlerts: true } });
    await user.type(input("URL"), "mqtt://x");
    await user.type(input("Keep alive"), "30");
    await user.click(input("Verify"));
    await user.selectOptions(input("QoS"), "at most once");
    expect(saved().jsonData).toEqual({
      manageAlerts: true,
      url: "mqtt://x",
      keepAlive: 30,
      verify: false,
      qos: "at most once",
    });
  });

  test("an emptied input means the default", async () => {
    const { saved, user } = await openSettings({ jsonData: { keepAlive: 5 } });
    await user.clear(input("Keep alive"));
    expect(saved().jsonData).toEqual({});
    expect(input("Keep alive").placeholder).toBe("60");
  });

  test("text becomes a number when the input is left", async () => {
    const { saved, user } = await openSettings();
    await user.type(input("Wait"), "1.");
    expect(saved().jsonData.wait).toBe("1.");
    await user.tab();
    expect(saved().jsonData.wait).toBe(1);
  });

  test("an invalid value is kept, with an error", async () => {
    const { saved, user } = await openSettings();
    await user.type(input("Keep alive"), "often");
    expect(saved().jsonData.keepAlive).toBe("often");
    expect(screen.getByText('expected an integer, got "often"')).toBeTruthy();
  });

  test("a required field has an error only after it was left empty", async () => {
    const { user } = await openSettings();
    expect(screen.queryByText("URL is required")).toBeNull();
    await user.click(input("URL"));
    await user.tab();
    expect(screen.getByText("URL is required")).toBeTruthy();
  });

  test("a list shows its default, and entries can be added and removed", async () => {
    const { saved, user } = await openSettings();
    expect(input("Topics 1").value).toBe("sensors/#");
    await user.click(screen.getByRole("button", { name: "Add to Topics" }));
    await user.type(input("Topics 2"), "lab");
    expect(saved().jsonData.topics).toEqual(["sensors/#", "lab"]);
    await user.click(screen.getByRole("button", { name: "Remove Topics 1" }));
    await user.click(screen.getByRole("button", { name: "Remove Topics 1" }));
    expect(saved().jsonData.topics).toEqual([]);
  });

  test("an invalid entry of a list or a table has its error", async () => {
    await openSettings({ jsonData: { topics: ["a", 5], labels: { a: "b", c: 7 } } });
    expect(screen.getByText("expected a string, got 5")).toBeTruthy();
    expect(screen.getByText("expected a string, got 7")).toBeTruthy();
    expect(screen.getAllByRole("alert")).toHaveLength(2);
  });

  test("a full list has no button to add entries", async () => {
    const { user } = await openSettings();
    await user.click(screen.getByRole("button", { name: "Add to Renamed" }));
    expect(screen.queryByRole("button", { name: "Add to Renamed" })).toBeNull();
  });

  test("a map keeps a duplicate name while it is typed", async () => {
    const { saved, user } = await openSettings({ jsonData: { labels: { a: "1" } } });
    await user.click(screen.getByRole("button", { name: "Add to Labels" }));
    await user.type(input("Labels 2: name"), "a");
    expect(input("Labels 2: name").getAttribute("aria-invalid")).toBe("true");
    await user.type(input("Labels 2: name"), "b");
    await user.type(input("Labels 2: value"), "2");
    expect(saved().jsonData.labels).toEqual({ a: "1", ab: "2" });
  });

  test("a tagged union shows the fields of its tag and restores their values", async () => {
    const { saved, user } = await openSettings();
    expect(screen.queryByLabelText("User")).toBeNull();
    await user.selectOptions(input("Login"), "password");
    await user.type(input("User"), "me");
    await user.selectOptions(input("Login"), "anonymous");
    expect(saved().jsonData.login).toEqual({ method: "anonymous" });
    await user.selectOptions(input("Login"), "password");
    expect(saved().jsonData.login).toEqual({ method: "password", user: "me" });
  });

  test("an optional group is added and removed by its switch", async () => {
    const { saved, user } = await openSettings();
    await user.click(input("Proxy"));
    expect(saved().jsonData.proxy).toEqual({ kind: "http" });
    await user.type(input("Host"), "p");
    expect(saved().jsonData.proxy).toEqual({ kind: "http", host: "p" });
    await user.click(input("Proxy"));
    expect(saved().jsonData).toEqual({});
  });

  describe("null in place of a default", () => {
    const nullable = (of: object, value: unknown) => ({ anyOf: [of, { type: "null" }], default: value });
    const OPTIONAL: PluginSchema = {
      version: 1,
      sourceSetting: null,
      sources: [
        {
          name: "",
          settings: {
            properties: {
              wait: nullable({ type: "number" }, 5),
              maybe: nullable({ type: "boolean" }, true),
              mode: nullable({ enum: ["slow", "fast"] }, "fast"),
              proxy: nullable({ $ref: "#/$defs/Proxy" }, { host: "p" }),
              topics: nullable({ type: "array", items: { type: "string" } }, ["a"]),
              labels: nullable({ type: "object", additionalProperties: { type: "string" } }, { a: "b" }),
              pair: nullable({ type: "array", prefixItems: [{ type: "integer" }] }, [1]),
            },
            required: [],
            $defs: { Proxy: { type: "object", properties: { host: { type: "string" } }, required: [] } },
          },
          secrets: [],
          queries: [],
        },
      ],
    };

    test("is shown as it is", async () => {
      serve(OPTIONAL);
      const names = ["wait", "maybe", "mode", "proxy", "topics", "labels", "pair"];
      await openSettings({ jsonData: Object.fromEntries(names.map((name) => [name, null])) });
      const shown = ["Wait", "Maybe", "Mode", "Pair"].map((label) => input(label).value);
      expect(shown).toEqual(["", "", "", "null"]);
      expect(input("Wait").placeholder).toBe("None");
      expect(input("Proxy").checked).toBe(false);
      for (const label of ["Host", "Topics 1", "Labels 1: name"]) {
        expect(screen.queryByLabelText(label)).toBeNull();
      }
    });

    test("is what a group has that was switched off, and it can be switched on again", async () => {
      serve(OPTIONAL);
      const { saved, user } = await openSettings();
      expect(input("Proxy").checked).toBe(true);
      await user.click(input("Proxy"));
      expect(saved().jsonData).toEqual({ proxy: null });
      expect(input("Proxy").checked).toBe(false);
      await user.click(input("Proxy"));
      expect(saved().jsonData).toEqual({ proxy: {} });
    });

    test("is what an emptied JSON input has, which stays empty until it is left", async () => {
      serve(OPTIONAL);
      const { saved, user } = await openSettings();
      expect(input("Pair").value).toBe("[1]");
      await user.clear(input("Pair"));
      expect(saved().jsonData).toEqual({ pair: null });
      expect(input("Pair").value).toBe("");
      await user.tab();
      expect(input("Pair").value).toBe("null");
    });
  });

  test("other values are edited as JSON; invalid JSON changes nothing", async () => {
    const { saved } = await openSettings();
    fireEvent.change(input("Pair"), { target: { value: "[1," } });
    expect(saved().jsonData.pair).toBeUndefined();
    expect(input("Pair").value).toBe("[1,");
    fireEvent.change(input("Pair"), { target: { value: "[1,2]" } });
    expect(saved().jsonData.pair).toEqual([1, 2]);
  });

  test("a secret is written only to secureJsonData", async () => {
    const { saved, user } = await openSettings();
    await user.type(input("Password"), "abc");
    expect(saved().secureJsonData).toEqual({ password: "abc" });
    expect(saved().jsonData).toEqual({});
  });

  test("a saved secret is hidden, kept when others change, and replaced after a reset", async () => {
    const { saved, user } = await openSettings({ secureJsonFields: { password: true, other: true } });
    expect(input("Password").value).toBe("configured");
    await user.type(input("URL"), "mqtt://x");
    expect(saved().secureJsonFields).toEqual({ password: true, other: true });
    expect(saved().secureJsonData).toBeUndefined();
    await user.click(screen.getByRole("button", { name: "Reset" }));
    expect(saved()).toMatchObject({
      secureJsonFields: { password: false, other: true },
      secureJsonData: { password: "" },
    });
    await user.type(input("Password"), "new");
    expect(saved().secureJsonData).toEqual({ password: "new" });
  });

  test("a provisioned data source is read-only", async () => {
    await openSettings({ readOnly: true, jsonData: { topics: ["a"] } });
    expect(input("URL").disabled && input("QoS").disabled && input("Password").disabled).toBe(true);
    expect(screen.queryByRole("button", { name: "Add to Topics" })).toBeNull();
  });

  test("settings of the wrong type are shown, with errors", async () => {
    const invalid = {
      url: 5,
      keepAlive: "x",
      verify: "no",
      qos: 1,
      topics: "a",
      labels: [1],
      login: "me",
      retries: 3,
      proxy: true,
      renamed: {},
      pair: null,
    };
    await openSettings({ jsonData: invalid });
    expect(input("Verify").value).toBe("on");
    expect(screen.getByText("expected a string, got 5")).toBeTruthy();
    expect(screen.getByText('expected true or false, got "no"')).toBeTruthy();
    expect(screen.getByText('expected a list, got "a"')).toBeTruthy();
  });
});

describe("sections", () => {
  const number = (section?: string, more = {}) => ({ type: "integer", default: 1, section, ...more });
  const SECTIONS: PluginSchema = {
    version: 1,
    sourceSetting: null,
    sources: [
      {
        name: "x",
        settings: {
          type: "object",
          properties: {
            retries: number("Advanced"),
            port: number(undefined, { description: "The `TCP` port.", minimum: 1, maximum: 9000 }),
            depth: number(undefined, { description: "Levels", exclusiveMinimum: 0 }),
            size: number(undefined, { minimum: 2 }),
            wait: number(undefined, { description: "Seconds; 0: none.", minimum: 0 }),
            ca: number("TLS"),
            key: { anyOf: [{ type: "string", section: "TLS" }, { type: "null" }], default: null },
            token: { type: "string", writeOnly: true, section: "Login" },
            rules: { title: "Rules", default: null, section: "Rules" },
            parts: { type: "array", items: {}, default: [], section: "Parts" },
            labels: { type: "object", additionalProperties: { type: "string" }, default: {}, section: "Rules" },
          },
        },
        secrets: ["token"],
        queries: [],
      },
    ],
  };
  const header = (title: string) => screen.getByRole("button", { name: new RegExp(`^${title}`) });
  const isOpen = (title: string) => header(title).getAttribute("aria-expanded") === "true";

  test("follow the other fields, Advanced last, and say what is in them", async () => {
    serve(SECTIONS);
    const { saved, user } = await openSettings();
    const titles = screen.getAllByRole("button").map((button) => button.textContent);
    expect(titles).toEqual(["TLSCA, Key", "LoginToken", "RulesRules, Labels", "PartsParts", "AdvancedRetries"]);
    expect(screen.queryByLabelText("Retries")).toBeNull();
    await user.click(header("Advanced"));
    await user.type(input("Retries"), "3");
    await user.click(header("Advanced"));
    expect(isOpen("Advanced")).toBe(false);
    expect(screen.queryByLabelText("Retries")).toBeNull();
    expect(saved().jsonData).toEqual({ retries: 3 });
  });

  test("keep what is typed but no value yet when they are closed", async () => {
    serve(SECTIONS);
    const { saved, user } = await openSettings({ jsonData: { rules: [1] } });
    fireEvent.change(input("Rules"), { target: { value: '{"a": ' } });
    await user.click(screen.getByLabelText("Add to Labels"));
    await user.type(screen.getByLabelText("Labels 1: value"), "berlin");
    await user.click(header("Rules"));
    expect(isOpen("Rules")).toBe(false);
    await user.click(header("Rules"));
    expect(input("Rules").value).toBe('{"a": ');
    expect(screen.getByRole("alert").textContent).toContain("Invalid JSON");
    expect(screen.getByLabelText<HTMLInputElement>("Labels 1: value").value).toBe("berlin");
    expect(saved().jsonData).toEqual({ rules: [1] });
    fireEvent.change(input("Rules"), { target: { value: '{"a": 2}' } });
    expect(saved().jsonData).toEqual({ rules: { a: 2 } });
  });

  test("keep what is typed in the entries of a list when another one is removed", async () => {
    serve(SECTIONS);
    const { user } = await openSettings({ jsonData: { parts: [null, null] } });
    fireEvent.change(input("Parts 2"), { target: { value: "[" } });
    await user.click(screen.getByLabelText("Remove Parts 1"));
    expect(input("Parts 1").value).toBe("[");
    await user.click(screen.getByLabelText("Remove Parts 1"));
    await user.click(screen.getByLabelText("Add to Parts"));
    expect(input("Parts 1").value).toBe("");
  });

  test("are open when one of their values or secrets is set", async () => {
    serve(SECTIONS);
    await openSettings({ jsonData: { key: "k" }, secureJsonFields: { token: true } });
    expect(["TLS", "Login", "Advanced"].map(isOpen)).toEqual([true, true, false]);
  });

  test("ranges are part of the help's last sentence, and code in it has no backticks", async () => {
    serve(SECTIONS);
    await openSettings();
    const texts = screen.getAllByRole("paragraph").map((paragraph) => paragraph.innerHTML.replace(/ style="[^"]*"/, ""));
    expect(texts).toEqual([
      "The <code>TCP</code> port (1 to 9,000).",
      "Levels (above 0)",
      "At least 2",
      "Seconds; 0: none.",
    ]);
  });
});

describe("several classes in one plugin", () => {
  const SEVERAL: PluginSchema = {
    version: 1,
    sourceSetting: "source",
    sources: [
      {
        name: "demo",
        help: "A walk.",
        settings: { type: "object", properties: {} },
        secrets: [],
        queries: [],
      },
      {
        name: "file",
        settings: { type: "object", properties: { directory: { type: "string" } }, required: ["directory"] },
        secrets: [],
        queries: [],
      },
      { name: "lost", error: "it needs the package x" },
    ],
  };

  test("the fields are those of the selected class", async () => {
    serve(SEVERAL);
    const { saved, user } = await openSettings();
    expect(screen.getByText("This source has no other settings.")).toBeTruthy();
    await user.selectOptions(input("Source"), "file");
    await user.type(input("Directory"), "/logs");
    expect(saved().jsonData).toEqual({ source: "file", directory: "/logs" });
  });

  test("an unusable class and an unknown one have an error", async () => {
    serve(SEVERAL);
    await openSettings({ jsonData: { source: "lost" } });
    expect(screen.getByText("lost cannot be used: it needs the package x")).toBeTruthy();
    document.body.innerHTML = "";
    await openSettings({ jsonData: { source: "other" } });
    expect(screen.getByText("expected one of demo, file, lost, got other")).toBeTruthy();
  });
});

describe("without a schema", () => {
  test.each([
    ["is missing", undefined, 404, "cannot load the plugin's schema.json (HTTP 404)"],
    [
      "has another version",
      { ...KINDS, version: 9 },
      200,
      "cannot use the plugin's schema.json: expected version 1, got 9",
    ],
    [
      "is null",
      null,
      200,
      "cannot use the plugin's schema.json: expected at least one data source class, got null",
    ],
  ])("that %s, settings and queries are edited as JSON", async (_, schema, status, error) => {
    serve(schema, status);
    const settings = await openSettings({ jsonData: { a: 1 } });
    expect(screen.getByText(`No settings form: ${error}`)).toBeTruthy();
    fireEvent.change(screen.getByLabelText("Settings (jsonData)", { selector: "textarea" }), {
      target: { value: '{"a": 2}' },
    });
    expect(settings.saved().jsonData).toEqual({ a: 2 });
    const query = await openQuery({ queryType: "x", hide: true });
    expect(screen.getByText(`No query form: ${error}`)).toBeTruthy();
    fireEvent.change(screen.getByLabelText("Query as JSON", { selector: "textarea" }), {
      target: { value: '{"queryType": "y"}' },
    });
    expect(query.saved()).toEqual({ refId: "A", datasource: { uid: "u" }, hide: true, queryType: "y" });
    expect(query.run).not.toHaveBeenCalled();
  });
});

/** The schema, with streams that are exact by default or not. */
function withStreams(exact: Record<string, boolean>): PluginSchema {
  const [source] = KINDS.sources;
  const queries = source!.queries!.map((spec) => ({ ...spec, exact: exact[spec.name] }));
  return { ...KINDS, sources: [{ ...source!, queries }] };
}

describe("the query editor", () => {
  test("a new query follows the first stream without required fields", async () => {
    const { saved, run } = await openQuery();
    await waitFor(() => expect(saved().queryType).toBe("alive"));
    expect(run).toHaveBeenCalledTimes(1);
  });

  test.each([
    [true, { exact: true }],
    [false, { exact: false }],
  ])("a new query of a stream is exact if its rows have cursors: %s", async (exact, expected) => {
    serve(withStreams({ topic: false, alive: exact }));
    const { saved } = await openQuery();
    await waitFor(() => expect(saved()).toMatchObject({ queryType: "alive", ...expected }));
  });

  test.each([
    ["of the first stream's default", { exact: false }, { exact: true }],
    ["that was chosen", { exact: true }, { exact: true }],
    ["of a query that was saved without one", {}, {}],
  ])("another stream has its own default instead of a join %s", async (_, join, expected) => {
    serve(withStreams({ topic: false, alive: true }));
    const { saved, user } = await openQuery({ queryType: "topic", ...join });
    await user.selectOptions(input("Query type"), "alive");
    const { exact } = saved();
    expect({ ...(exact === undefined ? {} : { exact }) }).toEqual(expected);
  });

  test("opening a saved query does not change it", async () => {
    const query = { queryType: "topic", site: 5, gone: [1], withStreaming: false };
    const { saved, run } = await openQuery(query);
    expect(saved()).toEqual({ refId: "A", datasource: { uid: "u" }, ...query });
    expect(run).not.toHaveBeenCalled();
  });

  test("fields, streaming, join and alias are written, Grafana's keys are kept", async () => {
    const { saved, user } = await openQuery({ queryType: "topic", hide: true, key: "k" });
    await user.type(input("Site"), "berlin");
    await user.type(input("Rate"), "5");
    await user.type(input("Alias"), "Roof $site");
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
    await user.click(input("With Streaming"));
    expect(saved().withStreaming).toBe(false);
    expect(screen.getByLabelText<HTMLInputElement>("Exact").disabled).toBe(true);
  });

  test("it shows that a panel with an expression gets no live rows", async () => {
    const expression = { refId: "B", datasource: { type: "__expr__", uid: "__expr__" } };
    const other = { refId: "B", datasource: { uid: "u" } };
    const message = /No live rows with an expression/;
    const { user } = await openQuery({ queryType: "topic" }, [{ refId: "A" }, expression]);
    expect(screen.getByRole("alert").textContent).toMatch(message);
    await user.click(input("With Streaming"));
    expect(screen.queryByText(message)).toBeNull();
    await openQuery({ queryType: "topic" }, [{ refId: "A" }, other]);
    expect(screen.queryByText(message)).toBeNull();
  });

  test("it runs after a change, when an input is left or an option chosen", async () => {
    const { run, user } = await openQuery({ queryType: "topic" });
    await user.click(input("Rate"));
    await user.tab();
    expect(run).toHaveBeenCalledTimes(0);
    await user.type(input("Rate"), "12");
    expect(run).toHaveBeenCalledTimes(0);
    await user.keyboard("{Enter}");
    expect(run).toHaveBeenCalledTimes(1);
    await user.tab();
    expect(run).toHaveBeenCalledTimes(1);
    await user.selectOptions(input("Query type"), "compare");
    expect(run).toHaveBeenCalledTimes(2);
    await user.click(input("Strict"));
    expect(run).toHaveBeenCalledTimes(3);
  });

  test("a template variable is accepted in any input", async () => {
    const { saved, user } = await openQuery({ queryType: "topic" });
    await user.type(input("Rate"), "$rate");
    await user.tab();
    expect(saved().hz).toBe("$rate");
    expect(screen.queryByRole("alert")).toBeNull();
    await user.selectOptions(input("Query type"), "compare");
    await user.selectOptions(input("How"), "$site");
    expect(saved().how).toBe("$site");
  });

  test("the fields of a stream are kept when another one is selected", async () => {
    const { saved, user } = await openQuery({ queryType: "topic", site: "berlin" });
    await user.selectOptions(input("Query type"), "alive");
    expect(screen.queryByLabelText("Site")).toBeNull();
    await user.selectOptions(input("Query type"), "topic");
    expect(input("Site").value).toBe("berlin");
    expect(saved().site).toBe("berlin");
  });

  test("a query of an unknown stream is shown as JSON", async () => {
    const { saved } = await openQuery({ queryType: "was", old: 1 });
    expect(screen.getByText("This data source has no stream was")).toBeTruthy();
    expect(
      screen.getByLabelText<HTMLTextAreaElement>("Query as JSON", { selector: "textarea" }).value,
    ).toContain('"old"');
    expect(saved().old).toBe(1);
  });

  test.each([
    { queryType: "topic", site: 5, file: { a: 1 }, hz: "fast", withStreaming: "yes", exact: 0, alias: 3 },
    { queryType: "compare", how: 7, strict: "no" },
    { queryType: 7 },
    { queryType: null, alias: null },
  ])("a query of an older class opens: %j", async (query) => {
    await openQuery(query);
    expect(input("Query type")).toBeTruthy();
  });

  test("values are suggested for what is typed, and other text is accepted", async () => {
    const { saved, user, datasource, run } = await openQuery({ queryType: "topic", hz: 5 });
    await user.type(input("Site"), "ber");
    await waitFor(() =>
      expect(datasource.getResource).toHaveBeenCalledWith(
        "forms/suggest",
        { stream: "topic", field: "site", typed: "ber", values: '{"hz":5}' },
        { showErrorAlert: false },
      ),
    );
    const list = await screen.findByRole("listbox");
    expect(
      within(list)
        .getAllByRole("option")
        .map((each) => each.textContent),
    ).toEqual(["berlin", "bern"]);
    await user.keyboard("{ArrowDown}{ArrowDown}{Enter}");
    expect(saved().site).toBe("bern");
    expect(run).toHaveBeenCalledTimes(1);
    await user.type(input("Site"), "-elsewhere");
    await user.tab();
    expect(saved().site).toBe("bern-elsewhere");
  });

  test("any number can be typed where numbers are suggested, and a suggestion replaces what is typed", async () => {
    const rate = { properties: { rate: { type: "number" } }, required: [] };
    const spec = { name: "at", kind: "stream" as const, fields: { rate: "float" as const }, suggest: ["rate"], schema: rate };
    serve({ ...KINDS, sources: [{ ...KINDS.sources[0]!, queries: [spec] }] });
    const { saved, user, datasource } = await openQuery({ queryType: "at" });
    datasource.getResource = vi.fn(async () => ["0.50", "2", "2"]);
    await user.type(input("Rate"), "-0.25");
    await user.tab();
    expect(saved().rate).toBe(-0.25);
    await user.clear(input("Rate"));
    await user.type(input("Rate"), "1.");
    const list = await screen.findByRole("listbox");
    expect(within(list).getAllByRole("option")).toHaveLength(2);
    await user.keyboard("{ArrowDown}{Enter}");
    expect(saved().rate).toBe(0.5);
    await user.clear(input("Rate"));
    await user.type(input("Rate"), "3.");
    await user.tab();
    expect(saved().rate).toBe(3);
  });

  test("suggestions close when their input moves, and not when anything else scrolls", async () => {
    const { user } = await openQuery({ queryType: "topic" });
    await user.click(input("Site"));
    const list = await screen.findByRole("listbox");
    fireEvent.scroll(list);
    fireEvent.scroll(input("Rate"));
    fireEvent.scroll(document); // of the focus, which brought the input into view
    expect(screen.getByRole("listbox")).toBe(list);
    input("Site").closest<HTMLElement>("div[style]")!.getBoundingClientRect = () => new DOMRect(0, -40);
    fireEvent.scroll(document);
    expect(screen.queryByRole("listbox")).toBeNull();
  });

  test("an error of the backend is shown in place of the suggestions", async () => {
    const { user, datasource } = await openQuery({ queryType: "topic" });
    datasource.getResource = vi.fn(async () => Promise.reject({ data: { message: "the broker is down" } }));
    await user.click(input("Site"));
    expect(await screen.findByText("the broker is down")).toBeTruthy();
  });

  test("an outdated answer is ignored", async () => {
    const { user, datasource } = await openQuery({ queryType: "topic" });
    const answers: Array<(values: string[]) => void> = [];
    datasource.getResource = vi.fn(() => new Promise<string[]>((resolve) => answers.push(resolve)));
    await user.click(input("Site"));
    await user.type(input("Site"), "b");
    await waitFor(() => expect(answers).toHaveLength(2));
    answers[1]!(["berlin"]);
    await screen.findByText("berlin");
    answers[0]!(["paris"]);
    await Promise.resolve();
    expect(screen.queryByText("paris")).toBeNull();
  });
});
