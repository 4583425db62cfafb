// A page with Grafana's packages of one version, served on loopback, and a browser before it.
import { createServer } from "node:http";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
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
  "--disable-lcd-text", // pictures that are the same everywhere, and small
];

// React 18 has another way to show a page than 17.
const ROOT = {
  17: `import ReactDOM from "react-dom"; export const show = (node, at) => ReactDOM.render(node, at);`,
  18: `import { createRoot } from "react-dom/client"; export const show = (node, at) => createRoot(at).render(node);`,
};

async function bundleHost(version) {
  const packages = join(here, version);
  const react = JSON.parse(readFileSync(join(packages, "node_modules/react/package.json"), "utf8")).version;
  const { outputFiles } = await build({
    stdin: { contents: readFileSync(join(here, "host.tsx"), "utf8"), resolveDir: packages, loader: "tsx" },
    bundle: true,
    write: false,
    format: "iife",
    jsx: "transform",
    tsconfigRaw: {}, // that of the frontend leads to stand-ins
    define: { "process.env.NODE_ENV": '"development"', global: "window", "process.env": "{}" },
    loader: { ".svg": "dataurl", ".woff": "empty", ".woff2": "empty", ".ttf": "empty", ".css": "empty", ".png": "empty" },
    logLevel: "error",
    plugins: [
      {
        name: "root",
        setup(found) {
          // SystemJS in 9.4 asks for it where there is no browser
          found.onResolve({ filter: /^fs$/ }, () => ({ path: "fs", namespace: "empty" }));
          found.onLoad({ filter: /.*/, namespace: "empty" }, () => ({ contents: "" }));
          found.onResolve({ filter: /^aiostream-compat-root$/ }, () => ({ path: "root", namespace: "root" }));
          found.onLoad({ filter: /.*/, namespace: "root" }, () => ({
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

/** Serves the page below /sub/, as a Grafana behind a proxy is. `answer(url)`: what resources say. */
async function serve(host, schema, version, answer) {
  const icons = join(here, version, "node_modules/@grafana/ui/dist/public/img/icons");
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    const say = (type, body) => response.writeHead(200, { "Content-Type": type }).end(body);
    const path = url.pathname;
    if (path === "/sub/") return say("text/html", PAGE);
    if (path === "/sub/host.js") return say("text/javascript", host);
    if (path.endsWith("/module.js")) return say("text/javascript", readFileSync(join(built, "module.js")));
    if (path.endsWith("/schema.json")) return say("application/json", JSON.stringify(schema));
    if (path.includes("/resources/")) return say("application/json", JSON.stringify(answer(url)));
    const icon = path.includes("/img/icons/") && join(icons, path.split("/img/icons/")[1]);
    if (icon && existsSync(icon)) return say("image/svg+xml", readFileSync(icon));
    if (icon) return say("image/svg+xml", '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24"/>');
    return response.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/** Runs `play(open)` with a browser; `open(options)` is a new page with an editor on it. */
export async function withBrowser(version, schema, answer, play) {
  const host = await bundleHost(version);
  const server = await serve(host, schema, version, answer);
  const profile = mkdtempSync(join(tmpdir(), "aiostream-compat-"));
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: FLAGS,
    viewport: { width: 1000, height: 700 },
  });
  const said = [];
  const open = async (options) => {
    const page = await browser.newPage();
    page.on("console", (message) => message.type() === "error" && said.push(message.text()));
    page.on("pageerror", (error) => said.push(String(error)));
    await page.goto(`http://127.0.0.1:${server.address().port}/sub/`);
    await page.evaluate((given) => window.start(given), options).catch((error) => {
      throw new Error([...said, error.message].join("\n"));
    });
    await page.waitForSelector("#page > *");
    return page;
  };
  try {
    return await play(open, said);
  } finally {
    await browser.close();
    server.close();
    rmSync(profile, { recursive: true, force: true });
  }
}
