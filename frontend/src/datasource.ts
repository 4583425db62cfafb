import { DataSourceWithBackend } from "@grafana/runtime";
import type { DataSourceInstanceSettings } from "@grafana/data";

import type { StreamQuery, StreamSettings } from "./types";

/** One configured data source in the browser. */
export class StreamDataSource extends DataSourceWithBackend<StreamQuery, StreamSettings> {
  // Grafana takes a data source class with another number of parameters for an Angular one.
  constructor(settings: DataSourceInstanceSettings<StreamSettings>) {
    super(settings);
  }
}
