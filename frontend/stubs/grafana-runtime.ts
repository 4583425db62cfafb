// The part of @grafana/runtime that the module uses; see grafana-data.ts.
import type { DataQuery, DataSourceInstanceSettings, ScopedVars } from "./grafana-data";

export class DataSourceWithBackend<Q extends DataQuery = DataQuery, O = any> {
  id: number;
  uid: string;
  name: string;
  type: string;
  meta: DataSourceInstanceSettings["meta"];
  interval?: string;
  constructor(public instanceSettings: DataSourceInstanceSettings<O>) {
    this.id = instanceSettings.id;
    this.uid = instanceSettings.uid;
    this.name = instanceSettings.name;
    this.type = instanceSettings.type;
    this.meta = instanceSettings.meta;
  }
  filterQuery?(query: Q): boolean;
  applyTemplateVariables(query: Q, _scopedVars: ScopedVars): any {
    return query;
  }
  getDefaultQuery?(app: string): Partial<Q>;
  getResource(_path: string, _params?: Record<string, any>, _options?: any): Promise<any> {
    return Promise.reject(new Error("no backend in tests"));
  }
}

export interface DataSourceSrv {
  getInstanceSettings(ref?: string | null): DataSourceInstanceSettings | undefined;
}

let sources: DataSourceSrv = { getInstanceSettings: () => undefined };

export function getDataSourceSrv(): DataSourceSrv {
  return sources;
}

/** Tests only. */
export function setDataSourceSrv(found: DataSourceSrv): void {
  sources = found;
}

export interface TemplateSrv {
  getVariables(): Array<{ name: string }>;
  replace(target?: string, scopedVars?: ScopedVars, format?: any): string;
}

let templates: TemplateSrv = { getVariables: () => [], replace: (text = "") => text };

export function getTemplateSrv(): TemplateSrv {
  return templates;
}

/** Tests only. */
export function setTemplateSrv(found: TemplateSrv): void {
  templates = found;
}
