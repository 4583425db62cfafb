// Takes screenshots of both editors for the documentation: node pictures.mjs SCHEMA.json DIR.
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { withBrowser } from "./page.mjs";

const [schemaFile, folder] = process.argv.slice(2);
const schema = JSON.parse(readFileSync(schemaFile, "utf8"));

mkdirSync(folder, { recursive: true });

const SETTINGS = {
  url: "mqtt://broker.example.com:1883",
  keepAlive: 60,
  qos: "at least once",
  labels: { site: "berlin" },
  login: { method: "password", user: "grafana" },
  proxy: { host: "proxy.example.com" },
  renamed: [{ topic: "sensors/4711", shownAs: "Boiler" }],
};

await withBrowser(
  "12.4.10",
  schema,
  () => ["berlin: oven", "berlin: roof"],
  async (open, errors) => {
    for (const mode of ["light", "dark"]) {
      const config = await open({ editor: "config", mode, settings: SETTINGS });
      await config.setViewportSize({ width: 620, height: 900 });
      await screenshot(config, `settings-${mode}`);
      const query = await open({
        editor: "query",
        mode,
        settings: SETTINGS,
        query: { queryType: "topic", site: "berlin", hz: 5, exact: true, alias: "${site}" },
      });
      await query.setViewportSize({ width: 1000, height: 260 });
      await query.getByLabel("Sensor").focus();
      await query.getByRole("option").first().waitFor();
      await query.screenshot({ path: join(folder, `query-${mode}.png`) });
      const own = await open({
        editor: "query",
        mode,
        settings: SETTINGS,
        query: { queryType: "compare", topics: ["a", "b"], smooth: 3, weights: { a: 1 } },
      });
      await screenshot(own, `query-own-${mode}`);
    }
    if (errors.length) {
      console.error(errors.join("\n"));
    }
  },
);

async function screenshot(page, name) {
  await page.waitForTimeout(300); // fonts and icons
  await page.locator("#page").screenshot({ path: join(folder, `${name}.png`) });
}
