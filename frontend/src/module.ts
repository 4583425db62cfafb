// What Grafana loads. One file for every aiostream plugin: it knows neither the plugin's id nor what
// its author wrote, both come from the host at run time.
import { DataSourcePlugin } from "@grafana/data";

import { ConfigEditor } from "./ConfigEditor";
import { StreamDataSource } from "./datasource";
import { QueryEditor } from "./QueryEditor";

export const plugin = new DataSourcePlugin(StreamDataSource).setConfigEditor(ConfigEditor).setQueryEditor(QueryEditor);
