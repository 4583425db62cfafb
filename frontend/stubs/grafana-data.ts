// The part of @grafana/data that the module uses, for types and tests. Checked against the real
// packages by `scripts/frontend --compat`.

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
