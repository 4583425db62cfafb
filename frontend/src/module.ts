// What Grafana loads. One file for every aiostream plugin: it knows neither the plugin's id nor what
// its author wrote, both come from the host at run time.
import { DataSourcePlugin } from "@grafana/data";

import { ConfigEditor } from "./editors/ConfigEditor";
import { StreamDataSource } from "./datasource";
import { QueryEditor } from "./editors/QueryEditor";

// For an author's own module, which may take ours apart: docs/frontend.md.
export { ConfigEditor, QueryEditor, StreamDataSource };

export const plugin = new DataSourcePlugin(StreamDataSource).setConfigEditor(ConfigEditor).setQueryEditor(QueryEditor);
