// Loads schema.json from the plugin's folder, once for each page.
import * as React from "react";

import { parsePluginSchema, type PluginSchema } from "../forms/pluginSchema";
import { messageOf } from "../responses";

const cache = new Map<string, Promise<PluginSchema>>();

/** The schema of a plugin. Rejects with an Error that has the reason. */
function loadPluginSchema(pluginId: string): Promise<PluginSchema> {
  const cached = cache.get(pluginId);
  if (cached) {
    return cached;
  }
  const loading = fetchPluginSchema(pluginId);
  cache.set(pluginId, loading);
  loading.catch(() => cache.delete(pluginId));
  return loading;
}

async function fetchPluginSchema(pluginId: string): Promise<PluginSchema> {
  // The URL is relative to the page's <base>, which includes Grafana's sub-path. reload: a new version of
  // a plugin may have new fields, and its files may have the same date, so that Grafana would answer a
  // browser that asks for changes "not modified".
  const answer = await fetch(`public/plugins/${pluginId}/schema.json`, {
    cache: "reload",
    credentials: "same-origin",
  });
  if (!answer.ok) {
    throw new Error(`cannot load the plugin's schema.json (HTTP ${answer.status})`);
  }
  try {
    return parsePluginSchema(await answer.json());
  } catch (error) {
    throw new Error(
      `cannot use the plugin's schema.json: ${messageOf(error)}`,
    );
  }
}

/** Both are undefined while the schema is loading. */
export interface SchemaState {
  schema?: PluginSchema;
  error?: string;
}

export function usePluginSchema(pluginId: string): SchemaState {
  const [state, setState] = React.useState<SchemaState>({});
  React.useEffect(() => {
    let isMounted = true;
    loadPluginSchema(pluginId).then(
      (schema) => isMounted && setState({ schema }),
      (error: Error) => isMounted && setState({ error: error.message }),
    );
    return () => {
      isMounted = false;
    };
  }, [pluginId]);
  return state;
}

/** For tests only. */
export function clearSchemaCache(): void {
  cache.clear();
}
