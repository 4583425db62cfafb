// Serves a page with Grafana's packages of one version, and opens it in Chromium.
import { createServer } from "node:http";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build as bundle } from "esbuild";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const built = join(here, "../../src/aiostream_ds/static");

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-lcd-text", // screenshots that are the same on every machine
];

// How React 17 and 18 render a page.
const ROOT = {
  17: `import ReactDOM from "react-dom"; export const render = (node, at) => ReactDOM.render(node, at);`,
  18: `import { createRoot } from "react-dom/client"; export const render = (node, at) => createRoot(at).render(node);`,
};

async function bundleHost(version) {
  const packages = join(here, version);
  const react = JSON.parse(readFileSync(join(packages, "node_modules/react/package.json"), "utf8")).version;
  const { outputFiles } = await bundle({
    stdin: { contents: readFileSync(join(here, "host.tsx"), "utf8"), resolveDir: packages, loader: "tsx" },
    bundle: true,
    write: false,
    format: "iife",
    jsx: "transform",
    tsconfigRaw: {}, // the frontend's tsconfig.json maps Grafana's packages to stubs
    define: { "process.env.NODE_ENV": '"development"', global: "window", "process.env": "{}" },
    loader: {
      ".svg": "dataurl",
      ".woff": "empty",
      ".woff2": "empty",
      ".ttf": "empty",
      ".css": "empty",
      ".png": "empty",
    },
    logLevel: "error",
    plugins: [
      {
        name: "root",
        setup(build) {
          // SystemJS in 9.4 imports it outside of browsers
          build.onResolve({ filter: /^fs$/ }, () => ({ path: "fs", namespace: "empty" }));
          build.onLoad({ filter: /.*/, namespace: "empty" }, () => ({ contents: "" }));
          build.onResolve({ filter: /^aiostream-compat-root$/ }, () => ({ path: "root", namespace: "root" }));
          build.onLoad({ filter: /.*/, namespace: "root" }, () => ({
            contents: ROOT[react.startsWith("17") ? 17 : 18],
            resolveDir: packages,
          }));
        },
      },
    ],
  });
  return outputFiles[0].contents;
}

const PAGE = `<!doctype html><html><head><meta charset="utf-8"><base href="/sub/"></head>
<body><div id="root"></div><script src="host.js"></script></body></html>`;

/** Serves the page below /sub/, as a Grafana with a sub-path. `answer(url)` returns a resource's answer. */
async function serve(host, schema, version, answer) {
  const icons = join(here, version, "node_modules/@grafana/ui/dist/public/img/icons");
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    const send = (type, body) => response.writeHead(200, { "Content-Type": type }).end(body);
    const path = url.pathname;
    if (path === "/sub/") return send("text/html", PAGE);
    if (path === "/sub/host.js") return send("text/javascript", host);
    if (path.endsWith("/module.js")) return send("text/javascript", readFileSync(join(built, "module.js")));
    if (path.endsWith("/schema.json")) return send("application/json", JSON.stringify(schema));
    if (path.includes("/resources/")) return send("application/json", JSON.stringify(answer(url)));
    const icon = path.includes("/img/icons/") && join(icons, path.split("/img/icons/")[1]);
    if (icon && existsSync(icon)) return send("image/svg+xml", readFileSync(icon));
    if (icon) return send("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"/>');
    return response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/** Runs `test(open, errors)` with a browser. `open(options)` opens a page with an editor; `errors` are
 * the errors in the browser's console. */
export async function withBrowser(version, schema, answer, test) {
  const host = await bundleHost(version);
  const server = await serve(host, schema, version, answer);
  const profile = mkdtempSync(join(tmpdir(), "aiostream-compat-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: FLAGS,
    viewport: { width: 1000, height: 700 },
  });
  const errors = [];
  const open = async (options) => {
    const page = await browser.newPage();
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.goto(`http://127.0.0.1:${server.address().port}/sub/`);
    await page
      .evaluate((parameters) => window.start(parameters), options)
      .catch((error) => {
        throw new Error([...errors, error.message].join("\n"));
      });
    await page.waitForSelector("#page > *");
    return page;
  };
  try {
    return await test(open, errors);
  } finally {
    await browser.close();
    server.close();
    rmSync(profile, { recursive: true, force: true });
  }
}
