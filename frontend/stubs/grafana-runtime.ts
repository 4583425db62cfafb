// A stub of @grafana/runtime; see grafana-data.ts.
import { EMPTY, Observable } from "rxjs";

import type {
  DataFrame,
  DataQuery,
  DataQueryRequest,
  DataQueryResponse,
  DataSourceInstanceSettings,
  LiveChannelAddress,
  ScopedVars,
} from "./grafana-data";

export const config: Record<string, any> = {};

export interface HealthCheckResult {
  status: string;
  message: string;
  details: Record<string, unknown> | undefined;
}

export class DataSourceWithBackend<Q extends DataQuery = DataQuery, O = any> {
  id: number;
  uid: string;
  name: string;
  type: string;
  meta: DataSourceInstanceSettings["meta"];
  interval?: string;
  annotations?: Record<string, any>;
  streamOptionsProvider = (request: DataQueryRequest<Q>, _frame: DataFrame): { maxLength?: number } => ({
    maxLength: request.maxDataPoints ?? 500,
  });
  constructor(public instanceSettings: DataSourceInstanceSettings<O>) {
    this.id = instanceSettings.id;
    this.uid = instanceSettings.uid;
    this.name = instanceSettings.name;
    this.type = instanceSettings.type;
    this.meta = instanceSettings.meta;
  }
  query(_request: DataQueryRequest<Q>): Observable<DataQueryResponse> {
    return EMPTY;
  }
  filterQuery?(query: Q): boolean;
  applyTemplateVariables(query: Q, _scopedVars: ScopedVars): any {
    return query;
  }
  getDefaultQuery?(app: string): Partial<Q>;
  callHealthCheck(): Promise<HealthCheckResult> {
    return Promise.reject(new Error("no backend in tests"));
  }
  async testDatasource(): Promise<{ status: string; message: string }> {
    const { status, message, details } = await this.callHealthCheck();
    if (status !== "OK") throw Object.assign(new Error(message), { details });
    return { status: "success", message };
  }
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

/** For tests only. */
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

/** For tests only. */
export function setTemplateSrv(found: TemplateSrv): void {
  templates = found;
}

export interface GrafanaLiveSrv {
  getStream?(address: LiveChannelAddress): Observable<{ type: string; state?: string; message?: any }>;
}

let live: GrafanaLiveSrv | undefined;

export function getGrafanaLiveSrv(): GrafanaLiveSrv | undefined {
  return live;
}

/** For tests only. */
export function setGrafanaLiveSrv(found: GrafanaLiveSrv | undefined): void {
  live = found;
}
