// The schema of a plugin's settings and queries: schema.json, written by aiostream_ds._grafana.forms.

export interface JsonSchema {
  type?: string;
  title?: string;
  /** Title of the section of the form that has the field. */
  section?: string;
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

/** The kind of a path field, which limits its values. */
export type PathKind = "segment" | "int" | "float" | "bool" | "date" | "uuid" | "any" | "rest";

/** A stream, or a `@query` method. */
export interface QuerySpec {
  name: string;
  kind: "stream" | "query";
  help?: string;
  pattern?: string;
  fields?: Record<string, PathKind>;
  schema: JsonSchema;
  /** Fields with a suggest hook. */
  suggest?: string[];
  /** Whether a new query is exact; saved ones stay as they are. */
  exact?: boolean;
}

/** One data source class of the plugin. */
export interface Source {
  name: string;
  help?: string;
  settings?: JsonSchema;
  secrets?: string[];
  queries?: QuerySpec[];
  /** Why the class is not usable in this package. */
  error?: string;
}

export interface PluginSchema {
  version: number;
  /** The setting that selects the class; null if there is only one. */
  sourceSetting: string | null;
  sources: Source[];
}

const VERSION = 1;

/** Checks the content of schema.json. Throws an Error with the reason if it is unusable. */
export function parsePluginSchema(value: unknown): PluginSchema {
  const schema = value as PluginSchema | null;
  if (!schema || typeof schema !== "object" || !Array.isArray(schema.sources) || !schema.sources.length) {
    const got = JSON.stringify(value)?.slice(0, 80);
    throw new Error(`expected at least one data source class, got ${got}`);
  }
  if (schema.version !== VERSION) {
    throw new Error(`expected version ${VERSION}, got ${String(schema.version)}`);
  }
  return schema;
}

/** The class that the settings select: the first by default; undefined for an unknown name. */
export function findSource(schema: PluginSchema, settings: Record<string, unknown>): Source | undefined {
  const name = schema.sourceSetting === null ? undefined : settings[schema.sourceSetting];
  if (name === undefined || name === null || name === "") {
    return schema.sources[0];
  }
  return schema.sources.find((source) => source.name === name);
}

/** The stream or `@query` method that `queryType` names. It may be empty if there is only one. */
export function findQuery(source: Source | undefined, queryType: unknown): QuerySpec | undefined {
  const queries = source?.queries ?? [];
  const found = queries.find((query) => query.name === (queryType ?? ""));
  return found ?? (!queryType && queries.length === 1 ? queries[0] : undefined);
}
