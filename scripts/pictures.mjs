// Takes the screenshots of the console for the documentation. scripts/pictures calls it.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const require = createRequire(new URL("../frontend/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const [garden, file, host, pushed, frames, images] = process.argv.slice(2);
const WIDTH = 900;
const HEIGHT = 520;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

async function open(url, options) {
  const page = await browser.newPage(options);
  await page.goto(url);
  await page.waitForSelector(".panel canvas");
  return page;
}

// -- the animation: a stream changes while it runs ------------------------------------------------------------------------

const page = await open(garden, { viewport: { width: WIDTH, height: HEIGHT }, colorScheme: "dark" });
await page.selectOption('[aria-label="Time range"]', "15");
await page.waitForTimeout(5000);

const list = [];
let number = 0;
let last = 0;
async function shoot(count, every = 180) {
  for (let n = 0; n < count; n++) {
    const name = `${String(number++).padStart(3, "0")}.png`;
    await page.screenshot({ path: join(frames, name) });
    const now = performance.now();
    await page.waitForTimeout(Math.max(0, every - (now - last)));
    last = performance.now();
    list.push(`-d ${every} ${name}`);
  }
}

const code = readFileSync(file, "utf-8");
await shoot(10);
writeFileSync(file, code.replace('yield {"value": value}', 'yield {"value": value, "doubled": 2 * value}'));
await page.locator(".tag", { hasText: "reloaded 1" }).waitFor();
await shoot(14);
writeFileSync(file, code.replace("yield", "yiel d"));
await page.locator(".reload-error").waitFor();
await shoot(9);
writeFileSync(
  file,
  code.replace('yield {"value": value}', 'yield {"value": value, "mean": value / 2, "high": abs(value)}'),
);
await page.locator(".tag", { hasText: "reloaded 2" }).waitFor();
await shoot(14);
writeFileSync(join(frames, "list"), list.join(" "));

// -- the screenshots ----------------------------------------------------------------------------

const size = { viewport: { width: 1100, height: 640 } };
const still = await open(host, { ...size, colorScheme: "dark" });
for (const path of ["memory", "net/bG8"]) {
  await still.fill('[aria-label="Path to follow"]', path);
  await still.click("form.follow button");
}
await still.waitForTimeout(6000);
await still.screenshot({ path: join(images, "console-dark.png") });
const rows = await open(pushed, { viewport: { width: 1100, height: 750 }, colorScheme: "light" });
await rows.waitForSelector(".panels > :nth-child(2) canvas");
await rows.waitForTimeout(2000);
await rows.screenshot({ path: join(images, "push.png") });
await browser.close();
