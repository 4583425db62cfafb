// A stub of @grafana/data for types and tests: the part that the module uses. `scripts/frontend --compat`
// checks it against the real packages.

export interface DataQuery {
  refId: string;
  hide?: boolean;
  key?: string;
  queryType?: string;
  datasource?: { type?: string; uid?: string } | null;
}

export interface DataSourceJsonData {
  manageAlerts?: boolean;
}

export interface DataSourceInstanceSettings<J = DataSourceJsonData> {
  id: number;
  uid: string;
  type: string;
  name: string;
  url?: string;
  meta: { id: string; baseUrl: string; module: string; [key: string]: any };
  jsonData: J;
  readOnly?: boolean;
  [key: string]: any;
}

export interface DataSourceSettings<J = DataSourceJsonData, S = Record<string, any>> {
  id: number;
  uid: string;
  type: string;
  name: string;
  jsonData: J;
  secureJsonData?: S;
  secureJsonFields: Record<string, boolean>;
  readOnly: boolean;
  [key: string]: any;
}

export interface DataSourcePluginOptionsEditorProps<J = DataSourceJsonData, S = Record<string, any>> {
  options: DataSourceSettings<J, S>;
  onOptionsChange: (options: DataSourceSettings<J, S>) => void;
}

export interface QueryEditorProps<D, Q extends DataQuery, O = DataSourceJsonData> {
  datasource: D;
  query: Q;
  onChange: (query: Q) => void;
  onRunQuery: () => void;
  onBlur?: () => void;
  range?: any;
  data?: any;
  options?: O;
  queries?: DataQuery[];
}

export interface SelectableValue<T = any> {
  label?: string;
  value?: T;
  description?: string;
  [key: string]: any;
}

export interface ScopedVars {
  [key: string]: { text?: any; value: any; [key: string]: any } | undefined;
}

export type CoreApp = string;

export class DataSourcePlugin<D = any> {
  components: Record<string, any> = {};
  constructor(public DataSourceClass: new (settings: any) => D) {}
  setConfigEditor(editor: any): this {
    this.components.ConfigEditor = editor;
    return this;
  }
  setQueryEditor(editor: any): this {
    this.components.QueryEditor = editor;
    return this;
  }
}

export enum LoadingState {
  Loading = "Loading",
  Streaming = "Streaming",
  Done = "Done",
  Error = "Error",
}

export interface QueryResultMetaNotice {
  severity: "info" | "warning" | "error";
  text: string;
}

export interface Field {
  name: string;
  type: string;
  config: Record<string, any>;
  labels?: Record<string, string>;
  values: any;
}

export interface DataFrame {
  name?: string;
  refId?: string;
  meta?: { notices?: QueryResultMetaNotice[]; custom?: Record<string, any>; channel?: string; dataTopic?: string };
  fields: Field[];
  length: number;
}

export function toDataFrame(frame: any): DataFrame {
  return { ...frame, length: frame.fields[0]?.values.length ?? 0 };
}

export interface DateTime {
  valueOf(): number;
}

export interface TimeRange {
  from: DateTime;
  to: DateTime;
  raw: { from: DateTime | string; to: DateTime | string };
}

export interface DataQueryRequest<Q extends DataQuery = DataQuery> {
  requestId: string;
  targets: Q[];
  range: TimeRange;
  timezone: string;
  maxDataPoints?: number;
  scopedVars: ScopedVars;
  [key: string]: any;
}

export interface DataQueryResponse {
  data: DataFrame[];
  key?: string;
  state?: LoadingState;
  error?: { message?: string; status?: number; refId?: string; data?: { message?: string; error?: string } };
}

/** Knows only the relative times now and now-Ns. */
export const rangeUtil = {
  convertRawToRange(raw: TimeRange["raw"], _timeZone?: string): TimeRange {
    const moment = (text: DateTime | string) => {
      const seconds = /^now(?:-(\d+)s)?$/.exec(String(text))?.[1] ?? 0;
      return typeof text === "string" ? Date.now() - Number(seconds) * 1000 : text.valueOf();
    };
    return { from: moment(raw.from), to: moment(raw.to), raw };
  },
};

export interface LiveChannelAddress {
  scope: string;
  namespace: string;
  path: string;
}

export function parseLiveChannelAddress(channel?: string): LiveChannelAddress | undefined {
  const [scope, namespace, ...path] = (channel ?? "").split("/");
  return path.length ? { scope, namespace, path: path.join("/") } : undefined;
}
