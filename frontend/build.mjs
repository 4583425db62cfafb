// Bundles src/module.ts into the one module that every aiostream plugin ships, for the loaders of
// Grafana 9.4 to 13, and any page beside it. `node build.mjs [--out DIR]`: under DIR instead of the
// Python package, which is how freshness is checked.
import { build } from "esbuild";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const flag = process.argv.indexOf("--out");
const out = flag < 0 ? join(here, "../src/aiostream_ds") : resolve(process.argv[flag + 1]);

// What every Grafana from 9.4 on gives a plugin. Not there: react/jsx-runtime, @grafana/schema.
const HOST = ["react", "react-dom", "@grafana/data", "@grafana/runtime", "@grafana/ui", "rxjs", "lodash", "@emotion/css"];

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

// AMD by a wrapper, since esbuild writes none. The names stand in double quotes in `define([...])`:
// Grafana 10 and 11 look for that text to tell AMD from SystemJS.
async function buildModule() {
  const short = { jsxFactory: "h", jsxFragment: "Fragment", inject: ["src/jsx.ts"] };
  const options = { ...COMMON, ...short, entryPoints: ["src/module.ts"], external: HOST, format: "cjs" };
  const probe = await build({ ...options, write: false, metafile: true, outfile: "module.js" });
  const [found] = Object.values(probe.metafile.outputs);
  const names = [...new Set(found.imports.filter((each) => each.external).map((each) => each.path))].sort();
  const unknown = names.filter((name) => !HOST.includes(name));
  if (unknown.length) {
    throw new Error(`the host does not give ${unknown.join(", ")}`);
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

// Pages of our own, which bring everything along; Preact stands in for React, at a tenth of its size.
const PAGES = [{ entry: "src/console/main.tsx", page: "src/console/index.html", to: "console/static/console.js" }];
const PREACT = { react: "preact/compat", "react-dom": "preact/compat", "react-dom/client": "preact/compat/client" };

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

// Written by us: esbuild would put the way from the output to the sources into the source map.
async function write(folder, options) {
  const { outputFiles } = await build({ ...options, write: false });
  mkdirSync(join(out, folder), { recursive: true });
  for (const { path, contents } of outputFiles) {
    writeFileSync(join(out, folder, basename(path)), contents);
  }
}

await buildModule();
await Promise.all(PAGES.map(buildPage));
