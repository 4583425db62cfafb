// Bundles the page in place of Grafana: `node build.mjs VERSION OUT [SCENES]`, with the packages of one
// version of Grafana, and with the package SCENES of dashboards instead of @grafana/scenes. The packages
// that it provides to the module are real, except @grafana/ui, which the frontend's stub replaces.
// amd.js is loaded last: packages that find `define` would register themselves as AMD modules.
import { build } from "../../../frontend/node_modules/esbuild/lib/main.js";
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const modules = join(here, "versions", process.argv[2], "node_modules");
const out = resolve(process.argv[3]);
const scenes = join(modules, process.argv[4] ?? "@grafana/scenes");
// 6.52 does not have the module that its package.json names. As CommonJS it would use other copies of
// Grafana's packages than the page.
const scenesModule = join(scenes, "dist/esm/packages/scenes/src/index.js");
mkdirSync(out, { recursive: true });
const alias = {
  "@grafana/ui": join(here, "src/grafana-ui.ts"),
  "@grafana/plugin-compat/datasources": join(here, "src/plugin-compat.ts"),
  "#scene": join(here, existsSync(scenes) ? "src/scene.ts" : "src/nothing.ts"),
  "@grafana/scenes": existsSync(scenesModule) ? scenesModule : scenes,
  // imported by 9.4 or 10.4 and not used here
  fs: join(here, "src/nothing.ts"),
  "systemjs/dist/system.js": join(here, "src/nothing.ts"),
  "systemjs/dist/system": join(here, "src/nothing.ts"),
  "systemjs/dist/extras/amd": join(here, "src/nothing.ts"),
};
if (!existsSync(join(modules, "@locker"))) {
  alias["@locker/near-membrane-dom"] = join(here, "src/nothing.ts"); // 9.4 has no sandbox
}
if (!existsSync(join(modules, "react-dom/client.js"))) {
  alias["react-dom/client"] = join(here, "src/react17.ts");
}
// scenes 6.52 imports a name that @grafana/schema 12.4 does not export; no panel here uses it.
const tableOptions = {
  name: "table options",
  setup: ({ onLoad }) =>
    onLoad({ filter: /table.panelcfg.x.types\.gen\.mjs$/ }, ({ path }) => {
      const text = readFileSync(path, "utf8");
      const missing = existsSync(scenesModule) && !/\bdefaultOptions\b/.test(text);
      return { contents: missing ? `${text}\nexport const defaultOptions = {};` : text };
    }),
};
await build({
  absWorkingDir: here,
  entryPoints: ["src/main.ts"],
  outfile: join(out, "page.js"),
  bundle: true,
  format: "iife",
  jsx: "transform",
  nodePaths: [modules],
  alias: { ...alias, react: join(modules, "react"), "react-dom": join(modules, "react-dom") },
  define: {
    "process.env.NODE_ENV": '"production"',
    "process.env.GRAFANA": JSON.stringify(process.argv[2]),
    global: "window",
  },
  plugins: [tableOptions],
  logLevel: "error",
});
cpSync(join(modules, "systemjs/dist/system.min.js"), join(out, "system.js"));
cpSync(join(modules, "systemjs/dist/extras/amd.min.js"), join(out, "amd.js"));
cpSync(join(modules, "uplot/dist/uPlot.min.css"), join(out, "page.css"));
writeFileSync(
  join(out, "index.html"),
  `<!doctype html><base href="/"><meta charset="utf-8"><title>Grafana</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="page/page.css">
<style>
body { font: 13px sans-serif; background: #111217; color: #ccccdc; margin: 12px }
.panel { background: #181b1f; border: 1px solid #2c3235; margin-bottom: 12px; padding: 8px; width: 640px }
.panel h2 { font-size: 14px; font-weight: 500; margin: 0 0 6px }
.notice { border-left: 3px solid #5794f2; margin: 4px 0; padding: 2px 8px }
.notice.warning { border-color: #ff9830 } .notice.error { border-color: #f2495c }
</style>
<body><script src="page/system.js"></script><script src="page/page.js"></script><script src="page/amd.js"></script>`,
);
