// @grafana/plugin-compat, which looks for exports that @grafana/runtime does not have yet; a bundler takes
// those for errors.
import { getDataSourceSrv } from "@grafana/runtime";

export const getDataSourceInstance = async (ref: any, scopedVars: any) => getDataSourceSrv().get(ref, scopedVars);
export const getDataSourceInstanceSettings = async (ref: any) => getDataSourceSrv().getInstanceSettings(ref);
export const getDataSourceInstanceList = async () => getDataSourceSrv().getList();
export const getDefaultDataSourceInstanceListItem = () => undefined;
