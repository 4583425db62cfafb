// Opens a console that takes pushes, runs the command that the page shows, and reloads the page.
// node push_page.mjs URL: prints {"command": …, "rows": the texts of the panel after each step}.
import { execSync } from "node:child_process";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../frontend/package.json", import.meta.url));
const { chromium } = require("playwright-core");

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
});
const page = await browser.newPage();
page.setDefaultTimeout(40_000);
await page.goto(process.argv[2]);
const command = await page.textContent(".empty pre");
const push = (loss) => execSync(command.replace("0.1}", `${loss}}`), { stdio: "ignore" });
const shows = (text) =>
  page.waitForFunction((each) => document.querySelector(".panel")?.textContent.includes(each), text);

push(0.1);
await page.waitForSelector(".panel canvas");
await shows("loss");
await shows("1 row");
push(0.2);
await shows("2 rows");
await page.reload();
await shows("2 rows, 2 from history");
push(0.3);
await shows("3 rows, 2 from history");
const panels = await page.locator(".panel").count();
await browser.close();
console.log(JSON.stringify({ command, panels }));
