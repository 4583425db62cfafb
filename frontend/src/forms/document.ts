// The document that forms are drawn from: schema.json, as aiostream_ds._grafana.forms writes it.

export interface JsonSchema {
  type?: string;
  title?: string;
  description?: string;
  default?: unknown;
  examples?: unknown[];
  enum?: unknown[];
  const?: unknown;
  format?: string;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  multipleOf?: number;
  minItems?: number;
  maxItems?: number;
  writeOnly?: boolean;
  items?: JsonSchema | boolean;
  prefixItems?: JsonSchema[];
  properties?: Record<string, JsonSchema>;
  additionalProperties?: JsonSchema | boolean;
  required?: string[];
  anyOf?: JsonSchema[];
  discriminator?: { propertyName: string; mapping: Record<string, string> };
  $ref?: string;
  $defs?: Record<string, JsonSchema>;
}

/** How a field of a path is written; decides which texts a path can hold. */
export type PathKind = "segment" | "int" | "float" | "any" | "rest";

/** One thing that a query can name: a stream, or an author's own query. */
export interface QuerySpec {
  name: string;
  kind: "stream" | "query";
  help?: string;
  pattern?: string;
  fields?: Record<string, PathKind>;
  schema: JsonSchema;
  /** Fields whose values can be asked for as the user types. */
  suggest?: string[];
}

/** One class of the plugin. */
export interface Source {
  name: string;
  help?: string;
  settings?: JsonSchema;
  secrets?: string[];
  queries?: QuerySpec[];
  /** Why it cannot be used in this package. */
  error?: string;
}

export interface PluginDocument {
  version: number;
  /** The setting that names the source; null when there is one. */
  by: string | null;
  sources: Source[];
}

const VERSION = 1;

/** The document, or an Error that says what is wrong with it. */
export function readDocument(value: unknown): PluginDocument {
  const found = value as PluginDocument | null;
  if (!found || typeof found !== "object" || !Array.isArray(found.sources) || !found.sources.length) {
    throw new Error("it describes no source");
  }
  if (found.version !== VERSION) {
    throw new Error(`its version is ${String(found.version)}; this frontend knows ${VERSION}`);
  }
  return found;
}

/** The source that these settings pick: the first one by default; undefined for an unknown name. */
export function sourceOf(document: PluginDocument, settings: Record<string, unknown>): Source | undefined {
  const name = document.by === null ? undefined : settings[document.by];
  if (name === undefined || name === null || name === "") {
    return document.sources[0];
  }
  return document.sources.find((source) => source.name === name);
}

/** What a query asks, by its `queryType`; left out, it is the only one there is. */
export function specOf(source: Source | undefined, queryType: unknown): QuerySpec | undefined {
  const specs = source?.queries ?? [];
  const found = specs.find((spec) => spec.name === (queryType ?? ""));
  return found ?? (!queryType && specs.length === 1 ? specs[0] : undefined);
}
