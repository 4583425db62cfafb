// What a panel saves and what an admin saves: the shapes that editors and data source share.
import type { DataQuery, DataSourceJsonData } from "@grafana/data";

/** A saved query: which stream, with its fields beside these, as `aiostream_ds.Query` reads it. */
export interface StreamQuery extends DataQuery {
  /** The stream, or the `@query` method; left out: the only one there is. */
  queryType?: string;
  /** Whether live rows follow the history; left out: they do. */
  withStreaming?: boolean;
  /** Whether they join it with nothing missing and nothing doubled. */
  exact?: boolean;
  /** The name of the series in the panel; may hold template variables. */
  alias?: string;
  /** The stream's own fields, camelCase. A text with a `$` in it is a template variable. */
  [field: string]: unknown;
}

/** The settings that are no secrets (jsonData). */
export interface StreamSettings extends DataSourceJsonData {
  [field: string]: any;
}
