// The fields of a form, made from a JSON Schema.
import type { JsonSchema, PathKind } from "./pluginSchema";

export interface FieldBase {
  name: string;
  label: string;
  help: string;
  /** Title of its section; "" for none. */
  section: string;
  /** It has no default and may not be empty. */
  required: boolean;
  /** Its value may be null. */
  nullable: boolean;
  default?: unknown;
  /** Shown in an empty input: the default, or an example. */
  placeholder: string;
}

export interface TextField extends FieldBase {
  kind: "text";
  multiline: boolean;
  pattern?: string;
  minLength?: number;
  maxLength?: number;
  path?: PathKind;
  suggest: boolean;
}

export interface NumberField extends FieldBase {
  kind: "number";
  integer: boolean;
  /** Strings are valid too. */
  allowsText: boolean;
  min?: number;
  max?: number;
  exclusiveMin?: number;
  exclusiveMax?: number;
  multipleOf?: number;
  suggest: boolean;
}

export interface Option {
  value: unknown;
  label: string;
  help?: string;
}

export interface SwitchField extends FieldBase {
  kind: "switch";
}
export interface SelectField extends FieldBase {
  kind: "select";
  options: Option[];
}
export interface SecretField extends FieldBase {
  kind: "secret";
  multiline: boolean;
}
export interface ListField extends FieldBase {
  kind: "list";
  item: Field;
  minItems?: number;
  maxItems?: number;
}
export interface MapField extends FieldBase {
  kind: "map";
  item: Field;
}
export interface GroupField extends FieldBase {
  kind: "group";
  fields: Field[];
  /** Members that have only one possible value. */
  constants: Record<string, unknown>;
}
export interface UnionField extends FieldBase {
  kind: "union";
  /** The member that names the branch. */
  tag: string;
  branches: Array<{ value: string; label: string; help: string; fields: Field[] }>;
}
/** A value that no other kind of field fits, edited as JSON. */
export interface JsonField extends FieldBase {
  kind: "json";
  /** Only objects are valid. */
  objectsOnly?: boolean;
}

/** A field for a whole object, used when there is no schema. */
export function jsonObjectField(name: string, label: string): JsonField {
  return {
    kind: "json",
    objectsOnly: true,
    name,
    label,
    help: "",
    section: "",
    required: false,
    nullable: false,
    placeholder: "",
  };
}

export type Field =
  | TextField
  | NumberField
  | SwitchField
  | SelectField
  | SecretField
  | ListField
  | MapField
  | GroupField
  | UnionField
  | JsonField;

export interface FieldOptions {
  /** Kinds of the fields of a stream's path. */
  paths?: Record<string, PathKind>;
  /** Names of the fields with a suggest hook. */
  suggest?: string[];
}

type Definitions = Record<string, JsonSchema>;

/** Deeper values are edited as JSON: a class may contain itself. */
const MAX_DEPTH = 6;

/** The fields of an object, required ones first. */
export function fieldsOf(schema: JsonSchema, options: FieldOptions = {}): Field[] {
  const fields = members(schema, schema.$defs ?? {}, 0);
  for (const field of fields) {
    if (field.kind === "text") {
      field.path = options.paths?.[field.name];
    }
    if (field.kind === "text" || field.kind === "number") {
      field.suggest = options.suggest?.includes(field.name) ?? false;
    }
  }
  return fields;
}

function members(
  schema: JsonSchema,
  definitions: Definitions,
  depth: number,
  hidden: string[] = [],
): Field[] {
  const required = schema.required ?? [];
  const fields = Object.entries(schema.properties ?? {})
    .filter(([name]) => !hidden.includes(name))
    .map(([name, each]) => toField(name, each, required.includes(name), definitions, depth));
  return [...fields.filter((field) => field.required), ...fields.filter((field) => !field.required)];
}

function toField(
  name: string,
  outer: JsonSchema,
  required: boolean,
  definitions: Definitions,
  depth: number,
): Field {
  const { schema, nullable } = resolveNullable(outer, definitions);
  const base: FieldBase = {
    name,
    label: annotation(outer, "title") ?? labelOf(name),
    section: annotation(outer, "section") ?? "",
    help: oneLine(outer.description ?? schema.description?.split("\n\n")[0]),
    required: required && !nullable,
    nullable,
    default: outer.default,
    placeholder: placeholderOf(outer, schema),
  };
  const kind = kindOf(schema, definitions, depth);
  // a switch has no third position: for null, or for a value that is still to be chosen
  const isThird = nullable || (required && outer.default === undefined);
  return { ...base, ...(isThird && kind.kind === "switch" ? YES_OR_NO : kind) } as Field;
}

const YES_OR_NO: KindOf<SelectField> = {
  kind: "select",
  options: [
    { value: true, label: "Yes" },
    { value: false, label: "No" },
  ],
};

/** What the author wrote about the field itself, not about its class. */
function annotation(outer: JsonSchema, key: "title" | "section"): string | undefined {
  return outer[key] ?? outer.anyOf?.find((branch) => branch[key] !== undefined)?.[key];
}

type KindOf<F> = F extends Field ? Omit<F, keyof FieldBase> : never;

function kindOf(schema: JsonSchema, definitions: Definitions, depth: number): KindOf<Field> {
  if (depth > MAX_DEPTH) {
    return { kind: "json" };
  }
  if (schema.writeOnly) {
    return { kind: "secret", multiline: isMultiline(schema) };
  }
  if (schema.enum) {
    return { kind: "select", options: schema.enum.filter((value) => value !== null).map(toOption) };
  }
  if (schema.discriminator) {
    return unionOf(schema, definitions, depth);
  }
  if (schema.anyOf) {
    return numberOrText(schema.anyOf);
  }
  switch (schema.type) {
    case "string":
      return {
        kind: "text",
        multiline: isMultiline(schema),
        pattern: schema.pattern,
        minLength: schema.minLength,
        maxLength: schema.maxLength,
        suggest: false,
      };
    case "integer":
    case "number":
      return numberOf(schema, false);
    case "boolean":
      return { kind: "switch" };
    case "array":
      return listOf(schema, definitions, depth);
    case "object":
      return objectOf(schema, definitions, depth);
    default:
      return { kind: "json" };
  }
}

function numberOf(schema: JsonSchema, allowsText: boolean): KindOf<NumberField> {
  return {
    kind: "number",
    integer: schema.type === "integer",
    allowsText,
    min: schema.minimum,
    max: schema.maximum,
    exclusiveMin: schema.exclusiveMinimum,
    exclusiveMax: schema.exclusiveMaximum,
    multipleOf: schema.multipleOf,
    suggest: false,
  };
}

/** Numbers and strings share one input; other unions are edited as JSON. */
function numberOrText(branches: JsonSchema[]): KindOf<Field> {
  const types = branches.map((branch) => branch.type).sort();
  const number = branches.find((branch) => branch.type === "number" || branch.type === "integer");
  if (number && types.every((type) => type === "string" || type === "integer" || type === "number")) {
    const integer = !types.includes("number");
    return numberOf({ ...number, type: integer ? "integer" : "number" }, types.includes("string"));
  }
  return { kind: "json" };
}

function listOf(schema: JsonSchema, definitions: Definitions, depth: number): KindOf<Field> {
  if (schema.prefixItems || typeof schema.items !== "object") {
    return { kind: "json" };
  }
  const item = entryOf(schema.items, definitions, depth);
  return { kind: "list", item, minItems: schema.minItems, maxItems: schema.maxItems };
}

function entryOf(schema: JsonSchema, definitions: Definitions, depth: number): Field {
  return { ...toField("", schema, true, definitions, depth + 1), label: "Entry" };
}

function objectOf(schema: JsonSchema, definitions: Definitions, depth: number): KindOf<Field> {
  if (schema.properties) {
    const constants = constantsOf(schema);
    return {
      kind: "group",
      fields: members(schema, definitions, depth + 1, Object.keys(constants)),
      constants,
    };
  }
  if (typeof schema.additionalProperties === "object") {
    return { kind: "map", item: entryOf(schema.additionalProperties, definitions, depth) };
  }
  return { kind: "json" };
}

function unionOf(schema: JsonSchema, definitions: Definitions, depth: number): KindOf<UnionField> {
  const { propertyName, mapping } = schema.discriminator!;
  const branches = Object.entries(mapping).map(([value, reference]) => {
    const branch = resolve({ $ref: reference }, definitions);
    return {
      value,
      label: labelOf(value),
      help: oneLine(branch.description?.split("\n\n")[0]),
      fields: members(branch, definitions, depth + 1, [propertyName]),
    };
  });
  return { kind: "union", tag: propertyName, branches };
}

/** Follows references, and splits `| None` off. */
function resolveNullable(
  schema: JsonSchema,
  definitions: Definitions,
): { schema: JsonSchema; nullable: boolean } {
  const found = resolve(schema, definitions);
  const branches = found.anyOf?.filter((branch) => branch.type !== "null");
  if (!found.anyOf || !branches || branches.length === found.anyOf.length) {
    return { schema: found, nullable: found.enum?.includes(null) ?? false };
  }
  if (branches.length === 1) {
    const { anyOf: _, ...others } = found;
    return { schema: { ...resolve(branches[0]!, definitions), ...others }, nullable: true };
  }
  return { schema: { ...found, anyOf: branches }, nullable: true };
}

function resolve(schema: JsonSchema, definitions: Definitions): JsonSchema {
  if (!schema.$ref) {
    return schema;
  }
  const name = schema.$ref.slice(schema.$ref.lastIndexOf("/") + 1);
  const { $ref: _, ...others } = schema;
  return { ...definitions[name], ...others };
}

function constantsOf(schema: JsonSchema): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const [name, each] of Object.entries(schema.properties ?? {})) {
    if (each.enum?.length === 1 && schema.required?.includes(name)) {
      found[name] = each.enum[0];
    }
  }
  return found;
}

function toOption(value: unknown): Option {
  return { value, label: String(value) };
}

function isMultiline(schema: JsonSchema): boolean {
  return schema.format === "textarea" || (schema as { multiline?: boolean }).multiline === true;
}

function placeholderOf(outer: JsonSchema, schema: JsonSchema): string {
  const values = [outer.default, outer.examples?.[0], schema.examples?.[0]];
  const value = values.find((each) => each !== undefined && each !== null && each !== "") ?? "";
  return typeof value === "object" ? "" : String(value);
}

function oneLine(text: string | undefined): string {
  return (text ?? "").replace(/\s+/g, " ").trim();
}

const SPELLINGS: Record<string, string> = { hz: "Hz", qos: "QoS" };
const ACRONYMS = new Set([
  "api",
  "ca",
  "cpu",
  "csv",
  "db",
  "dns",
  "http",
  "id",
  "ip",
  "json",
  "nic",
  "sql",
  "ssl",
  "tls",
  "ttl",
  "uid",
  "uri",
  "url",
]);

/** `keepAlive` becomes "Keep alive". */
export function labelOf(name: string): string {
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .split(/[\s_-]+/)
    .map((word) => word.toLowerCase())
    .map((word) => SPELLINGS[word] ?? (ACRONYMS.has(word) ? word.toUpperCase() : word));
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
