import { expect, test } from "vitest";

import { StreamDataSource } from "../src/datasource";
import * as module from "../src/module";

test("the data source class takes exactly one parameter, or Grafana takes it for Angular", () => {
  expect(StreamDataSource.length).toBe(1);
});

test("the module brings a data source and both editors", () => {
  const found = module.plugin as any;
  expect(found.DataSourceClass).toBe(StreamDataSource);
  expect(found.components).toMatchObject({ ConfigEditor: expect.any(Function), QueryEditor: expect.any(Function) });
});

test("an author's own module can take it apart", () => {
  expect(Object.keys(module).sort()).toEqual(["ConfigEditor", "QueryEditor", "StreamDataSource", "plugin"]);
});
