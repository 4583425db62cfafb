import { expect, test } from "vitest";

import { StreamDataSource } from "../src/datasource";
import { plugin } from "../src/module";

test("the data source class takes exactly one parameter, or Grafana takes it for Angular", () => {
  expect(StreamDataSource.length).toBe(1);
});

test("the module brings a data source and both editors", () => {
  const found = plugin as any;
  expect(found.DataSourceClass).toBe(StreamDataSource);
  expect(found.components).toMatchObject({ ConfigEditor: expect.any(Function), QueryEditor: expect.any(Function) });
});
