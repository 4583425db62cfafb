// JSON Schema becomes a form's fields: what a person fills in, without a word on how it looks.
import type { JsonSchema, PathKind } from "./document";

export interface FieldBase {
  name: string;
  label: string;
  help: string;
  /** It has neither a default nor may it be empty. */
  required: boolean;
  /** Its value may be null. */
  nullable: boolean;
  default?: unknown;
  /** What stands in an empty box: the default, or an example. */
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
  /** A text is as good as a number. */
  orText: boolean;
  min?: number;
  max?: number;
  above?: number;
  below?: number;
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
  /** Members that have one possible value. */
  constants: Record<string, unknown>;
}
export interface UnionField extends FieldBase {
  kind: "union";
  /** The member that says which branch it is. */
  tag: string;
  branches: Array<{ value: string; label: string; help: string; fields: Field[] }>;
}
/** What no widget fits: it is edited as JSON. */
export interface JsonField extends FieldBase {
  kind: "json";
  /** Only objects are allowed. */
  objects?: boolean;
}

/** The field by which a whole object is edited where there are no forms. */
export function wholeField(name: string, label: string): JsonField {
  return { kind: "json", objects: true, name, label, help: "", required: false, nullable: false, placeholder: "" };
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
  /** The path's fields of a stream. */
  paths?: Record<string, PathKind>;
  /** Names of fields that have suggestions. */
  suggest?: string[];
}

type Definitions = Record<string, JsonSchema>;

/** A class may hold itself; from here on it is edited as JSON. */
const DEEPEST = 6;

/** The fields of an object; those that have to be filled in come first. */
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

function members(schema: JsonSchema, definitions: Definitions, depth: number, hidden: string[] = []): Field[] {
  const required = schema.required ?? [];
  const fields = Object.entries(schema.properties ?? {})
    .filter(([name]) => !hidden.includes(name))
    .map(([name, each]) => toField(name, each, required.includes(name), definitions, depth));
  return [...fields.filter((field) => field.required), ...fields.filter((field) => !field.required)];
}

function toField(name: string, written: JsonSchema, required: boolean, definitions: Definitions, depth: number): Field {
  const { schema, nullable } = plain(written, definitions);
  const base: FieldBase = {
    name,
    label: titleOf(written) ?? labelOf(name),
    help: oneLine(written.description ?? schema.description?.split("\n\n")[0]),
    required: required && !nullable,
    nullable,
    default: written.default,
    placeholder: placeholderOf(written, schema),
  };
  const shape = shapeOf(schema, definitions, depth);
  // a switch has no third position
  return { ...base, ...(nullable && shape.kind === "switch" ? YES_OR_NO : shape) } as Field;
}

const YES_OR_NO: Shape<SelectField> = {
  kind: "select",
  options: [
    { value: true, label: "Yes" },
    { value: false, label: "No" },
  ],
};

/** The author's title of the field, not that of a class in it. */
function titleOf(written: JsonSchema): string | undefined {
  return written.title ?? written.anyOf?.find((branch) => branch.title !== undefined)?.title;
}

type Shape<F> = F extends Field ? Omit<F, keyof FieldBase> : never;

function shapeOf(schema: JsonSchema, definitions: Definitions, depth: number): Shape<Field> {
  if (depth > DEEPEST) {
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
    return mixed(schema.anyOf);
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

function numberOf(schema: JsonSchema, orText: boolean): Shape<NumberField> {
  return {
    kind: "number",
    integer: schema.type === "integer",
    orText,
    min: schema.minimum,
    max: schema.maximum,
    above: schema.exclusiveMinimum,
    below: schema.exclusiveMaximum,
    multipleOf: schema.multipleOf,
    suggest: false,
  };
}

/** A number or a text share one box; other mixtures have none. */
function mixed(branches: JsonSchema[]): Shape<Field> {
  const types = branches.map((branch) => branch.type).sort();
  const number = branches.find((branch) => branch.type === "number" || branch.type === "integer");
  if (number && types.every((type) => type === "string" || type === "integer" || type === "number")) {
    const integer = !types.includes("number");
    return numberOf({ ...number, type: integer ? "integer" : "number" }, types.includes("string"));
  }
  return { kind: "json" };
}

function listOf(schema: JsonSchema, definitions: Definitions, depth: number): Shape<Field> {
  if (schema.prefixItems || typeof schema.items !== "object") {
    return { kind: "json" };
  }
  const item = entryOf(schema.items, definitions, depth);
  return { kind: "list", item, minItems: schema.minItems, maxItems: schema.maxItems };
}

function entryOf(schema: JsonSchema, definitions: Definitions, depth: number): Field {
  return { ...toField("", schema, true, definitions, depth + 1), label: "Entry" };
}

function objectOf(schema: JsonSchema, definitions: Definitions, depth: number): Shape<Field> {
  if (schema.properties) {
    const constants = constantsOf(schema);
    return { kind: "group", fields: members(schema, definitions, depth + 1, Object.keys(constants)), constants };
  }
  if (typeof schema.additionalProperties === "object") {
    return { kind: "map", item: entryOf(schema.additionalProperties, definitions, depth) };
  }
  return { kind: "json" };
}

function unionOf(schema: JsonSchema, definitions: Definitions, depth: number): Shape<UnionField> {
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

/** The schema that is meant: references followed, `| None` taken apart. */
function plain(schema: JsonSchema, definitions: Definitions): { schema: JsonSchema; nullable: boolean } {
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

function placeholderOf(written: JsonSchema, schema: JsonSchema): string {
  const value = written.default ?? written.examples?.[0] ?? schema.examples?.[0];
  return value === undefined || value === null || typeof value === "object" ? "" : String(value);
}

function oneLine(text: string | undefined): string {
  return (text ?? "").replace(/\s+/g, " ").trim();
}

const SPELLED: Record<string, string> = { hz: "Hz", qos: "QoS" };
const LETTERS = new Set(["api", "ca", "cpu", "csv", "db", "dns", "http", "id", "ip", "json", "nic", "sql", "ssl", "tls", "ttl", "uid", "uri", "url"]);

/** `keepAlive` as people read it: Keep alive. */
export function labelOf(name: string): string {
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .split(/[\s_-]+/)
    .map((word) => word.toLowerCase())
    .map((word) => SPELLED[word] ?? (LETTERS.has(word) ? word.toUpperCase() : word));
  const text = words.join(" ");
  return text.charAt(0).toUpperCase() + text.slice(1);
}
