// The types of saved queries and settings.
import type { DataQuery, DataSourceJsonData } from "@grafana/data";

/** A saved query: these keys and the stream's fields, as `aiostream_ds.Query` reads them. */
export interface StreamQuery extends DataQuery {
  /** The stream or `@query` method. It may be left out if the class has only one. */
  queryType?: string;
  /** Whether live rows are appended to the history; default true. */
  withStreaming?: boolean;
  /** Whether they are appended without missing or duplicate rows; default false. */
  exact?: boolean;
  /** The name of the series in the panel. It may contain template variables. */
  alias?: string;
  /** The stream's fields, in camelCase. A string with a `$` may be a template variable. */
  [field: string]: unknown;
}

/** The settings that are not secret (jsonData). */
export interface StreamSettings extends DataSourceJsonData {
  [field: string]: any;
}
