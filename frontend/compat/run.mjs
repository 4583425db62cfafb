// Tests both editors of the built module with Grafana's packages of several versions, in Chromium:
// node run.mjs SCHEMA.json [VERSION…]. Exits with 1 if a check fails.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { withBrowser } from "./page.mjs";

const [schemaFile, ...requested] = process.argv.slice(2);
const VERSIONS = requested.length ? requested : ["9.4.17", "12.4.10", "13.2.0"];
const schema = JSON.parse(readFileSync(schemaFile, "utf8"));

/** Browser errors that Grafana's packages cause themselves. */
const KNOWN_ERRORS = [
  /grafanaBootData was not set/,
  /Failed to load resource.*404/, // icons that a version has elsewhere
  /outdated JSX transform/, // React 19 on classic JSX, which 9.4 needs
  /ReactDOM.render is no longer supported/,
  /defaultProps will be removed/, // React 18.3 on Grafana's own components
];

const CHECKS = {
  async "the config editor has each kind of field"(open) {
    const page = await open({
      editor: "config",
      mode: "dark",
      settings: { url: "mqtt://here", login: { method: "token" } },
    });
    await toggle(page, "TLS certificates");
    await toggle(page, "Advanced");
    for (const label of [
      "URL",
      "Keep alive",
      "Verify",
      "QoS",
      "Topics 1",
      "Client ID",
      "Login",
      "Header",
      "Password",
      "Certificate",
      "Times",
      "Proxy",
      "Greeting",
    ]) {
      assert.equal((await page.getByLabel(label, { exact: true }).count()) > 0, true, `no input ${label}`);
    }
  },

  async "numbers, switches, choices, lists and nested values are written into jsonData"(open) {
    const page = await open({ editor: "config", mode: "light", settings: {} });
    await page.getByLabel("URL", { exact: true }).fill("mqtt://broker");
    await page.getByLabel("Keep alive", { exact: true }).fill("30");
    await page.getByLabel("Verify", { exact: true }).evaluate((input) => input.click());
    await choose(page, "QoS", "exactly once");
    await page.getByRole("button", { name: "Add to Topics" }).click();
    await page.getByLabel("Topics 2", { exact: true }).fill("lab/#");
    await choose(page, "Login", "Password");
    await page.getByLabel("User", { exact: true }).fill("grafana");
    assert.deepEqual(await page.evaluate(() => window.saved.jsonData), {
      url: "mqtt://broker",
      keepAlive: 30,
      verify: false,
      qos: "exactly once",
      topics: ["sensors/#", "lab/#"],
      login: { method: "password", user: "grafana" },
    });
  },

  async "a section is closed without a value, and keeps what was typed when it is closed again"(open) {
    const page = await open({ editor: "config", mode: "light", settings: {} });
    const input = page.getByLabel("Client ID", { exact: true });
    assert.equal(await input.count(), 0, "it is open without a value");
    await page.getByText("Client ID, Retries, Greeting").waitFor();
    await toggle(page, "Advanced");
    await input.fill("oven");
    await toggle(page, "Advanced");
    await input.waitFor({ state: "detached" });
    assert.deepEqual(await page.evaluate(() => window.saved.jsonData), { clientId: "oven" });
    const again = await open({ editor: "config", mode: "light", settings: { clientId: "oven" } });
    assert.equal(await again.getByLabel("Client ID", { exact: true }).inputValue(), "oven");
  },

  async "an invalid value has an error"(open) {
    const page = await open({ editor: "config", mode: "light", settings: {} });
    await page.getByLabel("Keep alive", { exact: true }).fill("0");
    await page.getByText("expected 1 to 600, got 0").waitFor();
  },

  async "a saved secret is hidden, kept, and replaced after a reset"(open) {
    const page = await open({ editor: "config", mode: "dark", settings: {} });
    const row = page.locator("#page");
    assert.equal(await page.getByLabel("Password", { exact: true }).inputValue(), "configured");
    assert.equal(await page.evaluate(() => window.saved.secureJsonFields.password), true);
    await row.getByRole("button", { name: "Reset" }).first().click();
    await page.getByLabel("Password", { exact: true }).fill("s3cret");
    const saved = await page.evaluate(() => window.saved);
    assert.equal(saved.secureJsonData.password, "s3cret");
    assert.equal(saved.secureJsonFields.password, false);
    assert.equal("password" in saved.jsonData, false);
  },

  async "the query editor follows a stream, with its fields and suggestions"(open) {
    const page = await open({
      editor: "query",
      mode: "dark",
      settings: {},
      query: { queryType: "topic", site: "berlin" },
    });
    await page.getByLabel("Sensor", { exact: true }).click();
    await page.getByRole("option", { name: "berlin: roof" }).click();
    await page.getByLabel("Rate", { exact: true }).fill("$hz");
    await page.getByLabel("Alias", { exact: true }).fill("Roof");
    await page.getByLabel("With Streaming", { exact: true }).evaluate((input) => input.click());
    await page.getByLabel("With Streaming", { exact: true }).evaluate((input) => input.click());
    await page.getByLabel("Exact").evaluate((input) => input.click());
    const query = await page.evaluate(() => window.query);
    assert.deepEqual(query, {
      refId: "A",
      queryType: "topic",
      site: "berlin",
      sensor: "berlin: roof",
      hz: "$hz",
      alias: "Roof",
      withStreaming: true,
      exact: true,
    });
    assert.equal((await page.evaluate(() => window.runs)) >= 4, true);
    const requests = (await page.evaluate(() => window.requests)).filter((each) =>
      each.includes("/resources/forms/suggest"),
    );
    assert.match(requests[0] ?? "", /uid\/abc|datasources\/1/);
    assert.match(requests[0], /field=sensor/);
  },

  async "queries of an older class open: missing fields, more fields, other types, unknown streams"(open) {
    for (const query of [
      {},
      { queryType: "topic" },
      {
        queryType: "topic",
        site: 5,
        sensor: { a: 1 },
        hz: "fast",
        gone: [1],
        withStreaming: "yes",
        exact: 0,
        alias: 3,
      },
      { queryType: "compare", topics: "one", smooth: [], how: 7, strict: "no", weights: [1], depth: "deep" },
      { queryType: "was/there", old: true },
      { queryType: 7 },
    ]) {
      const page = await open({ editor: "query", mode: "light", settings: {}, query });
      assert.equal(await page.locator("#crash").count(), 0, `${JSON.stringify(query)} crashed`);
      await page.getByLabel("Query type", { exact: true }).waitFor();
      await page.close();
    }
  },
};

/** Opens or closes a section. */
async function toggle(page, title) {
  await page.getByText(new RegExp(`^${title}`)).first().click();
}

async function choose(page, label, option) {
  const input = page.getByLabel(label, { exact: true });
  await input.focus();
  await page.keyboard.press("ArrowDown");
  await page.getByText(option, { exact: true }).last().click();
}

let failed = 0;
for (const version of VERSIONS) {
  const answer = () => ["berlin: oven", "berlin: roof"];
  await withBrowser(version, schema, answer, async (open, errors) => {
    for (const [name, check] of Object.entries(CHECKS)) {
      errors.length = 0;
      let problem = "";
      try {
        await check(open);
        const unexpected = errors.filter((text) => !KNOWN_ERRORS.some((pattern) => pattern.test(text)));
        assert.deepEqual(unexpected, [], "errors in the browser's console");
      } catch (error) {
        problem = `\n    ${error.message}`;
        failed += 1;
      }
      console.log(`${problem ? "FAIL" : "ok  "} ${version}  ${name}${problem}`);
    }
  });
}
process.exit(failed ? 1 : 0);
