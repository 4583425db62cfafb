import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const stub = (name: string) => fileURLToPath(new URL(`./stubs/${name}`, import.meta.url));

// Unit tests use stubs of Grafana's packages; `scripts/frontend --compat` uses the real ones.
export default defineConfig({
  oxc: { jsx: { runtime: "classic" } },
  resolve: {
    alias: {
      "@grafana/data": stub("grafana-data.ts"),
      "@grafana/runtime": stub("grafana-runtime.ts"),
      "@grafana/ui": stub("grafana-ui.tsx"),
      lodash: stub("lodash.ts"),
    },
  },
  test: {
    environment: "jsdom",
    include: ["tests/**/*.test.{ts,tsx}"],
    setupFiles: ["tests/setup.ts"],
    testTimeout: 30_000, // typing into forms takes seconds on a busy machine
  },
});
