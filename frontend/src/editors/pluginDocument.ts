// schema.json of the plugin's own folder, fetched once for a page.
import * as React from "react";

import { readDocument, type PluginDocument } from "../forms/document";

const known = new Map<string, Promise<PluginDocument>>();

/** The document of a plugin. Rejects with an Error whose message says why there is none. */
export function loadDocument(pluginId: string): Promise<PluginDocument> {
  const kept = known.get(pluginId);
  if (kept) {
    return kept;
  }
  const asked = fetchDocument(pluginId);
  known.set(pluginId, asked);
  asked.catch(() => known.delete(pluginId));
  return asked;
}

async function fetchDocument(pluginId: string): Promise<PluginDocument> {
  // Against the page's <base>, which has the path that Grafana is served under. no-cache: Grafana
  // lets browsers keep such files for an hour, and a new version of a plugin has new fields.
  const answer = await fetch(`public/plugins/${pluginId}/schema.json`, { cache: "no-cache", credentials: "same-origin" });
  if (!answer.ok) {
    throw new Error(`the plugin's schema.json cannot be had (HTTP ${answer.status})`);
  }
  try {
    return readDocument(await answer.json());
  } catch (error) {
    throw new Error(`the plugin's schema.json cannot be used: ${error instanceof Error ? error.message : String(error)}`);
  }
}

export interface Loaded {
  document?: PluginDocument;
  problem?: string;
}

export function usePluginDocument(pluginId: string): Loaded {
  const [loaded, setLoaded] = React.useState<Loaded>({});
  React.useEffect(() => {
    let isHere = true;
    loadDocument(pluginId).then(
      (document) => isHere && setLoaded({ document }),
      (error: Error) => isHere && setLoaded({ problem: error.message })
    );
    return () => {
      isHere = false;
    };
  }, [pluginId]);
  return loaded;
}

/** Tests only. */
export function forgetDocuments(): void {
  known.clear();
}
