import { expect, test } from "vitest";

import { StreamDataSource } from "../src/datasource";
import * as module from "../src/module";

test("the data source class takes one parameter, which Grafana 9 requires of React plugins", () => {
  expect(StreamDataSource.length).toBe(1);
});

test("the plugin has a data source and both editors", () => {
  const found = module.plugin as any;
  expect(found.DataSourceClass).toBe(StreamDataSource);
  expect(found.components).toMatchObject({
    ConfigEditor: expect.any(Function),
    QueryEditor: expect.any(Function),
  });
});

test("the module exports its parts for an author's own module", () => {
  expect(Object.keys(module).sort()).toEqual(["ConfigEditor", "QueryEditor", "StreamDataSource", "plugin"]);
});
