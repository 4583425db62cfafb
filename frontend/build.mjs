// Bundles src/module.ts into the module that every aiostream plugin ships, for the loaders of Grafana
// 9.4 to 13, and the console's page. Writes into the Python package; `node build.mjs --out DIR` writes
// below DIR instead, to check whether the committed files are up to date.
import { build } from "esbuild";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const flag = process.argv.indexOf("--out");
const out = flag < 0 ? join(here, "../src/aiostream_ds") : resolve(process.argv[flag + 1]);

// The modules that every Grafana from 9.4 on provides. Not among them: react/jsx-runtime, @grafana/schema.
const HOST_MODULES = [
  "react",
  "react-dom",
  "@grafana/data",
  "@grafana/runtime",
  "@grafana/ui",
  "rxjs",
  "lodash",
  "@emotion/css",
];

const COMMON = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  jsx: "transform",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
};

// esbuild has no AMD output, so a wrapper is added. The names in `define([...])` are in double quotes:
// Grafana 10 and 11 search for that string to distinguish AMD from SystemJS.
async function buildModule() {
  const short = { jsxFactory: "h", jsxFragment: "Fragment", inject: ["src/jsx.ts"] };
  const options = {
    ...COMMON,
    ...short,
    entryPoints: ["src/module.ts"],
    external: HOST_MODULES,
    format: "cjs",
  };
  const probe = await build({ ...options, write: false, metafile: true, outfile: "module.js" });
  const [output] = Object.values(probe.metafile.outputs);
  const names = [...new Set(output.imports.filter((each) => each.external).map((each) => each.path))].sort();
  const unknown = names.filter((name) => !HOST_MODULES.includes(name));
  if (unknown.length) {
    throw new Error(`expected imports that Grafana provides, got ${unknown.join(", ")}`);
  }
  const parameters = names.map((_, index) => `d${index}`);
  const table = names.map((name, index) => `${JSON.stringify(name)}:d${index}`).join(",");
  await write("static", {
    ...options,
    outfile: "module.js",
    sourcemap: true,
    banner: {
      js:
        `define([${names.map((name) => JSON.stringify(name)).join(",")}],function(${parameters}){` +
        `var module={exports:{}},exports=module.exports,require=function(n){return{${table}}[n]};`,
    },
    footer: { js: "return module.exports});" },
  });
}

// The console's page, which includes its dependencies. Preact replaces React at a tenth of the size.
const PAGES = [
  { entry: "src/console/main.tsx", page: "src/console/index.html", to: "console/static/console.js" },
];
const PREACT = {
  react: "preact/compat",
  "react-dom": "preact/compat",
  "react-dom/client": "preact/compat/client",
};

async function buildPage({ entry, page, to }) {
  await write(dirname(to), {
    ...COMMON,
    entryPoints: [entry],
    outfile: basename(to),
    format: "iife",
    alias: PREACT,
    define: { "process.env.NODE_ENV": '"production"' },
  });
  copyFileSync(join(here, page), join(out, dirname(to), basename(page)));
}

// esbuild's own output would put the path from the output folder to the sources into the source map.
async function write(folder, options) {
  const { outputFiles } = await build({ ...options, write: false });
  mkdirSync(join(out, folder), { recursive: true });
  for (const { path, contents } of outputFiles) {
    writeFileSync(join(out, folder, basename(path)), contents);
  }
}

await buildModule();
await Promise.all(PAGES.map(buildPage));
