// How the console writes values.
import { expect, test } from "vitest";

import { counted } from "../../src/console/format";

test("one thing is singular, and large numbers have commas", () => {
  expect([0, 1, 1200].map((count) => counted(count, "row"))).toEqual(["0 rows", "1 row", "1,200 rows"]);
});
