// Opens the console in Chromium, uses every control as a person would, and prints what it found:
// {"steps": {name: "" or the error}, "errors": [errors in the browser's console]}.
// node page.mjs URL FOLDER: screenshots are written to FOLDER if it is given.
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(new URL("../../frontend/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const [url, folder] = process.argv.slice(2);

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
const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, colorScheme: "light" });
const page = await context.newPage();
page.setDefaultTimeout(40_000);
const errors = [];
page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
page.on("pageerror", (error) => errors.push(String(error)));

const steps = {};
async function step(name, work) {
  try {
    await work();
    steps[name] = "";
  } catch (error) {
    steps[name] = String(error.message ?? error)
      .split("\n")
      .slice(0, 4)
      .join(" ");
  }
}

async function picture(name) {
  if (folder) {
    await page.screenshot({ path: join(folder, `${name}.png`) });
  }
}

const first = page.locator(".panel").first();
const panels = () => page.locator(".panel").count();
const until = (work, ...rest) => page.waitForFunction(work, ...rest);
const follow = async (path) => {
  await page.fill('[aria-label="Path to follow"]', path);
  await page.click("form.follow button");
};
const menu = async (panel, text) => {
  await panel.locator('[aria-label="More"]').click();
  await panel.locator(".sheet button", { hasText: text }).click();
};
// The number of coloured pixels in the first chart: lines are coloured, grid and labels are grey.
const colouredPixels = () =>
  page.evaluate(() => {
    const canvas = document.querySelector(".panel canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let found = 0;
    for (let n = 0; n < data.length; n += 4) {
      found +=
        data[n + 3] > 60 &&
        Math.max(data[n], data[n + 1], data[n + 2]) - Math.min(data[n], data[n + 1], data[n + 2]) > 60;
    }
    return found;
  });
const equal = (actual, expected, what) => {
  if (actual !== expected) {
    throw new Error(`${what}: expected ${expected}, got ${actual}`);
  }
};

await page.goto(url);

await step("a chart draws rows of this machine's processor", async () => {
  await page.waitForSelector(".panel canvas");
  await until(() => /busy\s*[\d.]+%/.test(document.querySelector(".legend")?.textContent ?? ""));
  await until(
    () => Number(/([\d,]+) rows(?!\/)/.exec(document.querySelector(".panel footer").textContent)?.[1]) >= 4,
  );
  // it is drawn a moment after its rows are counted
  for (let tries = 0; (await colouredPixels()) < 50; tries += 1) {
    if (tries === 100) {
      throw new Error(`the chart has ${await colouredPixels()} coloured pixels`);
    }
    await page.waitForTimeout(100);
  }
});

await step("its axes are labelled", async () => {
  await page.waitForSelector(".u-axis"); // labels are drawn on the canvas: only the axis elements can be counted
  equal(await first.locator(".u-axis").count(), 3, "axes of time, % and load");
});

await step("a paused chart does not change until it goes live again", async () => {
  await first.locator('[aria-label="Pause"]').click();
  const shown = () => first.locator(".view canvas").evaluate((canvas) => canvas.toDataURL());
  await page.mouse.move(0, 0);
  await page.waitForTimeout(400);
  const before = await shown();
  await page.waitForTimeout(1500);
  equal(await shown(), before, "the paused picture");
  await first.locator('[aria-label="Go live"]').click();
  await first.locator('[aria-label="Pause"]').waitFor();
});

await step("dragging pans and pauses, a double click goes live", async () => {
  const box = await first.locator(".u-over").boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width / 2 + 80, box.y + box.height / 2, { steps: 4 });
  await page.mouse.up();
  await first.locator('[aria-label="Go live"]').waitFor();
  await page.mouse.dblclick(box.x + box.width / 2, box.y + box.height / 2);
  await first.locator('[aria-label="Pause"]').waitFor();
});

await step("a column is hidden by its legend", async () => {
  const series = first.locator(".series").first();
  await series.click();
  equal(await series.getAttribute("aria-pressed"), "false", "the legend");
  await series.click();
  equal(await series.getAttribute("aria-pressed"), "true", "the legend");
});

await step("the table shows rows", async () => {
  await first.locator('[role="tab"]', { hasText: "table" }).click();
  await first.locator("tbody tr").nth(1).waitFor();
  equal((await first.locator("th").allTextContents()).join(), "time,busy,user,system,iowait,load", "columns");
});

await step("raw packets are shown as received", async () => {
  await first.locator('[role="tab"]', { hasText: "packets" }).click();
  const text = await first.locator(".packets li").first().textContent();
  JSON.parse(text);
  await first.locator('[role="tab"]', { hasText: "chart" }).click();
});

await picture("chart-light");

await step("more paths are followed at once", async () => {
  await follow("memory");
  await until(() => document.querySelectorAll(".panel canvas").length === 2);
  await follow("net/bG8");
  await until(() => document.querySelectorAll(".panel canvas").length === 3);
});

await step("the error of a wrong path lists the paths", async () => {
  await follow("nonsense");
  await page.locator(".panel .problem", { hasText: "net/{nic:any}" }).waitFor();
  await page.locator('.panel:has(.problem) [aria-label="Close"]').click();
});

await step("a form drawn from the class runs its stream", async () => {
  const card = page.locator('[data-query="net"]');
  await card.locator("input").fill("lo");
  const before = await panels();
  await card.locator("button[type=submit]").click();
  await until((count) => document.querySelectorAll(".panel").length > count, before);
  await page.locator('.panel[data-path="net/bG8"] .series').nth(3).waitFor();
});

await step("a second viewer, a slow one, one that joins again, and a closed connection", async () => {
  await menu(first, "Second viewer");
  await until(() => document.querySelectorAll('.panel[data-path="cpu"]').length === 2);
  await menu(first, "Slow viewer");
  await page.locator(".tag.warn", { hasText: "slow" }).waitFor();
  await menu(first, "Leave and join again");
  await menu(first, "Close Grafana");
  await page.waitForTimeout(500);
  await until(() => document.querySelector(".panel footer .state").textContent === "running");
});

await step("a refused publication shows the reason", async () => {
  await first.locator('[aria-label="More"]').click();
  await first.locator(".publish button").click();
  await first.locator(".publish output", { hasText: "refused" }).waitFor();
  await page.keyboard.press("Escape");
});

await step("a panel is followed as the selected user", async () => {
  await page.selectOption('[aria-label="User"]', "Viewer");
  await follow("memory");
  await page.locator(".panel .tag", { hasText: "Viewer" }).waitFor();
  await page.selectOption('[aria-label="User"]', "Admin");
});

await step("the time range applies to every chart", async () => {
  await page.selectOption('[aria-label="Time range"]', "15");
  await page.selectOption('[aria-label="Time range"]', "300");
});

await step("the theme toggles between light and dark", async () => {
  const back = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await back();
  await page.click('[aria-label="Toggle theme"]');
  if ((await back()) === light) {
    throw new Error("the background has not changed");
  }
  await page.waitForTimeout(600);
  await picture("panels-dark");
});

await step("the list of channels shows running channels and filters by path", async () => {
  await page.locator('.tabs [role="tab"]', { hasText: "Channels" }).click();
  await page.locator(".line", { hasText: "cpu" }).locator(".running").waitFor();
  await page.fill('[aria-label="Filter by path"]', "mem");
  await until(() => document.querySelectorAll(".line").length === 1);
  await page.locator(".line").click();
  await page.locator(".detail button", { hasText: "Follow" }).click();
  await picture("channels-dark");
});

await step("the log filters lines by level", async () => {
  await page.locator('.tabs [role="tab"]', { hasText: "Log" }).click();
  await page.locator(".log li").first().waitFor();
  for (const level of ["errors", "warnings", "all"]) {
    await page.locator(".log .seg button", { hasText: level }).click();
  }
  await page.locator('.tabs [role="tab"]', { hasText: "Panels" }).click();
});

await step("on a phone the page fits, and the sidebar opens", async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  await page.waitForTimeout(400);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  equal(wide, 390, "the page's width");
  await picture("phone-dark");
  await page.click('[aria-label="Streams and settings"]');
  await page.locator('[data-query="cpu"]').waitFor();
  await page.click('[aria-label="Streams and settings"]');
  await page.setViewportSize({ width: 1280, height: 860 });
  await page.click('[aria-label="Toggle theme"]');
});

await step("all panels close", async () => {
  await page.locator(".tabs button", { hasText: "Close all" }).click();
  equal(await panels(), 0, "panels");
});

await step("saved settings show their streams, and Save & test shows its result", async () => {
  await page.selectOption("#settings-source", "demo");
  await page.locator("[data-settings] button[type=submit]").click();
  await page.locator('[data-query="walk"]').waitFor();
  await page.locator("[data-settings] .good").waitFor();
});

await step("twelve charts of sixty rows a second drop nothing", async () => {
  await follow("walk/60/{1..12}");
  await until(() => document.querySelectorAll(".panel").length === 12);
  await page.waitForTimeout(3000);
  await until(() => Number(document.querySelector(".totals div:nth-child(2) dd").textContent) > 300);
  equal(await page.locator(".totals .warn").count(), 0, "warnings of dropped rows");
  await picture("twelve-light");
  await page.locator(".tabs button", { hasText: "Close all" }).click();
});

await step("a thousand channels are followed, and their list scrolls", async () => {
  await follow("walk/1/{1..1000}");
  await until(() => Number(document.querySelector(".totals dd").textContent) >= 990, null, {
    timeout: 600_000,
  });
  await page.locator('.tabs [role="tab"]', { hasText: "Channels" }).click();
  await page.locator(".lines").evaluate((list) => (list.scrollTop = list.scrollHeight));
  await page.waitForTimeout(1200);
  const lines = await page.locator(".line").count();
  if (lines < 10 || lines > 100) {
    throw new Error(`${lines} lines are in the page`);
  }
  await picture("thousand-light");
});

await browser.close();
console.log(JSON.stringify({ steps, errors }));
