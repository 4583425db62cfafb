// The module that Grafana loads. It is the same file in every aiostream plugin: the plugin's id and the
// schema of its classes come from Grafana at run time.
import { DataSourcePlugin } from "@grafana/data";

import { StreamDataSource } from "./datasource";
import { ConfigEditor } from "./editors/ConfigEditor";
import { QueryEditor } from "./editors/QueryEditor";

// For an author's own module; see docs/frontend.md.
export { ConfigEditor, QueryEditor, StreamDataSource };

export const plugin = new DataSourcePlugin(StreamDataSource)
  .setConfigEditor(ConfigEditor)
  .setQueryEditor(QueryEditor);
