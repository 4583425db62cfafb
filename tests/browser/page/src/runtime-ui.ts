/** The exports of @grafana/ui that @grafana/runtime imports; none of them is rendered here. */

export const createLogger = () => ({ logger: () => undefined, enable: () => undefined, isEnabled: () => false });
export const attachDebugger = () => undefined;
export const HorizontalGroup = null;
export const Select = null;
export const Stack = null;
export const PluginSignatureBadge = null;
