// A small Grafana for the built module: an AMD loader, the packages of one version, and the services
// that the editors use. page.mjs bundles it with the packages of a version.
import * as data from "@grafana/data";
import * as runtime from "@grafana/runtime";
import * as ui from "@grafana/ui";
import lodash from "lodash";
import React from "react";
import * as ReactDOM from "react-dom";
import * as rxjs from "rxjs";

import { render } from "aiostream-compat-root";

const MODULES: Record<string, unknown> = {
  react: React,
  "react-dom": ReactDOM,
  rxjs,
  lodash,
  "@grafana/data": data,
  "@grafana/runtime": runtime,
  "@grafana/ui": ui,
};

const anyRuntime = runtime as any;
const anyUi = ui as any;
const anyData = data as any;

const PLUGIN_ID = "aiostream-compat-datasource";
const UID = "abc";

interface Options {
  mode: "light" | "dark";
  settings: Record<string, any>;
  query?: Record<string, any>;
  queries?: Array<Record<string, any>>; // of the panel
  editor: "config" | "query";
}

let jsonData: Record<string, any> = {};
const requests: string[] = [];

anyRuntime.setTemplateSrv({ getVariables: () => [{ name: "site" }], replace: (text = "") => text });
anyRuntime.setDataSourceSrv({
  getInstanceSettings: () => instanceSettings(),
  getList: () => [],
  get: async () => undefined,
});
const get = async (url: string, params: Record<string, string> = {}) => {
  const requested = `${url}?${new URLSearchParams(params)}`;
  requests.push(requested);
  const answer = await fetch(requested);
  return answer.json();
};
anyRuntime.setBackendSrv({
  get,
  fetch: ({ url, params }: any) => rxjs.from(get(url, params).then((found) => ({ data: found }))),
});

function instanceSettings() {
  const meta = {
    id: PLUGIN_ID,
    baseUrl: `public/plugins/${PLUGIN_ID}`,
    module: `public/plugins/${PLUGIN_ID}/module.js`,
    info: { version: "0.1.0" },
  };
  return { id: 1, uid: UID, type: PLUGIN_ID, name: "Kinds", meta, jsonData, url: "/api/datasources/proxy/1" };
}

/** Loads the module as Grafana's loader does. */
async function load(): Promise<any> {
  return new Promise((resolve, reject) => {
    (window as any).define = (names: string[], factory: (...modules: unknown[]) => unknown) => {
      const missing = names.filter((name) => !(name in MODULES));
      if (missing.length) {
        reject(new Error(`expected modules that Grafana has, got ${missing.join(", ")}`));
      }
      resolve(factory(...names.map((name) => MODULES[name])));
    };
    (window as any).define.amd = {};
    const script = document.createElement("script");
    script.src = `public/plugins/${PLUGIN_ID}/module.js`;
    script.onerror = () => reject(new Error("cannot load module.js"));
    document.head.appendChild(script);
  });
}

class ErrorBoundary extends React.Component<{ children: React.ReactNode }, { error?: Error }> {
  override state: { error?: Error } = {};
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  override render() {
    return this.state.error ? <pre id="crash">{String(this.state.error.stack)}</pre> : this.props.children;
  }
}

function Page({ plugin, options }: { plugin: any; options: Options }) {
  const theme = React.useMemo(() => anyData.createTheme({ colors: { mode: options.mode } }), [options.mode]);
  const [saved, setSaved] = React.useState<any>({
    ...instanceSettings(),
    readOnly: false,
    secureJsonFields: { password: true },
    secureJsonData: {},
  });
  const [query, setQuery] = React.useState<any>({ refId: "A", ...options.query });
  const datasource = React.useMemo(() => new plugin.DataSourceClass(instanceSettings()), [plugin]);
  jsonData = saved.jsonData;
  Object.assign(window, { saved, query });
  const { ConfigEditor, QueryEditor } = plugin.components;
  const Theme = anyUi.ThemeContext ?? anyData.ThemeContext;
  return (
    <Theme.Provider value={theme}>
      <anyUi.GlobalStyles />
      <div
        id="page"
        style={{ background: theme.colors.background.primary, color: theme.colors.text.primary, padding: 16 }}
      >
        <ErrorBoundary>
          {options.editor === "config" ? (
            <ConfigEditor options={saved} onOptionsChange={setSaved} />
          ) : (
            <QueryEditor
              datasource={datasource}
              query={query}
              queries={options.queries}
              onChange={setQuery}
              onRunQuery={() => {
                (window as any).runs = ((window as any).runs ?? 0) + 1;
              }}
            />
          )}
        </ErrorBoundary>
      </div>
    </Theme.Provider>
  );
}

Object.assign(window, {
  requests,
  start: async (options: Options) => {
    jsonData = options.settings;
    const { plugin } = await load();
    if (plugin.DataSourceClass.length !== 1) {
      throw new Error(`expected a class with one parameter, got ${plugin.DataSourceClass.length}`);
    }
    render(<Page plugin={plugin} options={options} />, document.getElementById("root")!);
  },
});
