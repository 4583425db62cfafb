/**
 * A page in place of Grafana: it loads a plugin's module.js as Grafana does, by SystemJS with the
 * host's packages. The tests control it through `window.stage`.
 */

import * as data from "@grafana/data";
import * as runtime from "@grafana/runtime";
import * as ui from "../../../../frontend/stubs/grafana-ui";
import * as scenes from "#scene"; // of @grafana/scenes, if this version has it
import lodash from "lodash";
import React from "react";
import ReactDOM from "react-dom";
import { createRoot } from "react-dom/client";
import * as rxjs from "rxjs";

import { backendSrv } from "./backend";
import { behaviour, liveSrv } from "./live";
import { mixed } from "./mixed";
import { type Options, Panel } from "./panel";
import { loadInSandbox } from "./sandbox";

declare const System: any;

const ID = "conformance-test-datasource";
const META = { id: ID, type: "datasource", name: ID, module: `/public/plugins/${ID}/module.js`, baseUrl: `/public/plugins/${ID}`, info: { version: "1.0.0" }, jsonData: {} };
const variables: Record<string, string> = {};

runtime.setBackendSrv(backendSrv);
(runtime as any).setGrafanaLiveSrv(liveSrv);
(runtime as any).setTemplateSrv({
  getVariables: () => Object.keys(variables).map((name) => ({ name })),
  replace: (text = "") => text.replace(/\$\{?(\w+)\}?/g, (whole, name) => variables[name] ?? whole),
  containsTemplate: (text = "") => text.includes("$"),
});
(runtime as any).setDataSourceSrv({
  getInstanceSettings: (ref: any) => ({ id: 1, uid: ref?.uid ?? ref, type: ID, name: ref?.uid ?? ref, meta: META, jsonData: {} }),
  getList: () => [],
});

const host: Record<string, any> = {
  react: { default: React, __useDefault: true },
  "react-dom": { default: ReactDOM, __useDefault: true },
  lodash: { default: lodash, __useDefault: true },
  "@grafana/data": data,
  "@grafana/runtime": runtime,
  "@grafana/ui": ui,
  rxjs,
};
const imports = Object.fromEntries(Object.keys(host).map((name) => [name, `app:${name}`]));
System.addImportMap({ imports });
Object.entries(host).forEach(([name, found]) => System.set(`app:${name}`, found));

const panels = new Map<string, Panel>();
const sources = new Map<string, any>();
const edited = new Map<string, { value: any; runs: number }>();
let plugin: any;
let scene: any;

const panelOf = (name: string): Panel => panels.get(name)!;

/** A data source of the loaded module, created as Grafana creates one. */
function sourceOf(uid: string): any {
  let source = sources.get(uid);
  if (!source) {
    const settings = { id: 1, uid, type: ID, name: uid, meta: META, jsonData: {}, readOnly: false, access: "proxy" };
    source = new plugin.DataSourceClass(settings);
    source.meta = META;
    sources.set(uid, source);
  }
  return source;
}

const stage = {
  setBehaviour: (name: keyof typeof behaviour, value: boolean) => (behaviour[name] = value),
  variables,
  async load(sandboxed = false) {
    const found = sandboxed ? await loadInSandbox(META.module, host) : await System.import(META.module);
    plugin = (found.plugin ? found : found.default).plugin;
    return { parameters: plugin.DataSourceClass.length };
  },
  variable: (name: string, value: string) => (variables[name] = value),
  hide(hidden: boolean) {
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => (hidden ? "hidden" : "visible") });
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
  },
  /** Open a panel of one data source; with several uids a mixed panel. */
  open(name: string, uids: string[], options: Options) {
    const ask = uids.length === 1 ? (request: any) => sourceOf(uids[0]).query(request) : mixed(uids.map(sourceOf));
    panels.set(name, new Panel(name, ask, options));
  },
  run: (name: string, changed?: Partial<Options>) => panelOf(name).run(changed),
  close(name: string) {
    panelOf(name).close();
    panels.delete(name);
  },
  summary: (name: string) => panelOf(name).summary(),
  inspect: (name: string) => panelOf(name).inspect(),
  /** All records since the last call. */
  records: (name: string) => panelOf(name).records.splice(0),
  health: (uid: string) => sourceOf(uid).testDatasource().catch((error: any) => ({ status: "error", message: error.message })),
  /** A dashboard of @grafana/scenes; `scene` calls one of its methods. */
  openScene: (raw: any, parts: any[]) => void (scene = new (scenes as any).Scene(raw, parts, sourceOf)),
  scene: (name: string, ...given: any[]) => scene[name](...given),
  sceneRows: (key: string) => scene.records.get(key).at(-1)?.rows ?? 0,
  sceneRecords: (key: string) => scene.records.get(key).splice(0),
  withoutRawStreams: () => delete liveSrv.getStream,
  /** Render the config or query editor as Grafana does: changes become its new props. */
  edit(kind: "ConfigEditor" | "QueryEditor", value: any) {
    const place = document.createElement("div");
    document.body.append(place);
    const root = createRoot(place);
    const Editor = plugin.components[kind];
    const state = { value, runs: 0 };
    const draw = () => {
      const shared = { datasource: sourceOf("exact"), data: undefined, range: undefined };
      const props =
        kind === "ConfigEditor"
          ? { options: state.value, onOptionsChange: change }
          : { ...shared, query: state.value, onChange: change, onRunQuery: () => state.runs++ };
      root.render(React.createElement(Editor, props));
    };
    const change = (changed: any) => {
      state.value = changed;
      draw();
    };
    edited.set(kind, state);
    draw();
  },
  edited: (kind: string) => edited.get(kind),
};

(window as any).stage = stage;
