// Values of a form's fields: validating them, and reading them from what a viewer types.
import type { Field, NumberField, TextField } from "./fields";
import type { PathKind } from "./pluginSchema";

export type Values = Record<string, unknown>;

export interface ValidationOptions {
  /** A string with a template variable is valid in any field. */
  variables?: boolean;
}

const VARIABLE = /\$\w+|\$\{[^}]+\}|\[\[[^\]]+\]\]/;

/** Whether a value contains a template variable: `$name`, `${name}` or `[[name]]`. */
export function hasVariable(value: unknown): boolean {
  return typeof value === "string" && VARIABLE.test(value);
}

/** Whether nothing is filled in, so that the default applies. */
export function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || value === "";
}

/** Whether a value is null in place of the default, as `withValue` writes it. */
export function isNull(field: Pick<Field, "nullable" | "default">, value: unknown): boolean {
  return value === null && field.nullable && !isEmpty(field.default);
}

/** The error of a value; "" when it is valid. Entries and nested fields are not validated. */
export function validate(field: Field, value: unknown, options: ValidationOptions = {}): string {
  if (isEmpty(value) || field.kind === "secret") {
    return field.required && isEmpty(value) && field.kind !== "secret" ? `${field.label} is required` : "";
  }
  if (options.variables && hasVariable(value)) {
    return "";
  }
  switch (field.kind) {
    case "text":
      return validateText(field, value);
    case "number":
      return validateNumber(field, value);
    case "switch":
      return typeof value === "boolean" ? "" : expected("true or false", value);
    case "select":
      return field.options.some((option) => option.value === value)
        ? ""
        : expected(`one of ${field.options.map((option) => option.label).join(", ")}`, value);
    case "list":
      return Array.isArray(value)
        ? validateLength(value.length, field.minItems, field.maxItems, "entry", "entries")
        : expected("a list", value);
    case "map":
    case "group":
      return isObject(value) ? "" : expected("an object", value);
    case "union":
      return isObject(value) && field.branches.some((branch) => branch.value === value[field.tag])
        ? ""
        : expected(
            `one of ${field.branches.map((branch) => branch.value).join(", ")}`,
            isObject(value) ? value[field.tag] : value,
          );
    default:
      return "";
  }
}

/** The errors of all values, also nested ones, by the path of the field: `tls.caFile`. */
export function validateAll(
  fields: Field[],
  values: Values,
  options: ValidationOptions = {},
  parent = "",
): Record<string, string> {
  const errors: Record<string, string> = {};
  for (const field of fields) {
    Object.assign(errors, validateNested(field, values[field.name], options, parent + field.name));
  }
  return errors;
}

function validateNested(
  field: Field,
  value: unknown,
  options: ValidationOptions,
  path: string,
): Record<string, string> {
  const error = validate(field, value, options);
  if (error) {
    return { [path]: error };
  }
  if (field.kind === "list" && Array.isArray(value)) {
    return Object.assign(
      {},
      ...value.map((entry, index) => validateNested(field.item, entry, options, `${path}[${index}]`)),
    );
  }
  if (!isObject(value)) {
    return {};
  }
  if (field.kind === "map") {
    return Object.assign(
      {},
      ...Object.entries(value).map(([key, entry]) =>
        validateNested(field.item, entry, options, `${path}.${key}`),
      ),
    );
  }
  if (field.kind === "group") {
    return validateAll(field.fields, value, options, `${path}.`);
  }
  if (field.kind === "union") {
    const branch = field.branches.find((each) => each.value === value[field.tag]);
    return validateAll(branch?.fields ?? [], value, options, `${path}.`);
  }
  return {};
}

const SEGMENT = /^[A-Za-z0-9_\-=.]+$/;

function isSegment(text: string): boolean {
  return SEGMENT.test(text) && text !== "." && text !== "..";
}

const PATH_KINDS: Partial<Record<PathKind, { matches: (text: string) => boolean; description: string }>> = {
  segment: { matches: isSegment, description: "letters, digits and any of _-=." },
  rest: {
    matches: (text) => text.split("/").every(isSegment),
    description: "letters, digits and any of _-=. with single slashes between them",
  },
};

function validateText(field: TextField, value: unknown): string {
  if (typeof value !== "string") {
    return expected("a string", value);
  }
  const path = field.path && PATH_KINDS[field.path];
  if (path && !path.matches(value)) {
    return expected(path.description, value);
  }
  if (field.pattern && !matchesPattern(field.pattern, value)) {
    return expected(`a string that matches ${field.pattern}`, value);
  }
  // characters as Python counts them
  return validateLength([...value].length, field.minLength, field.maxLength, "character", "characters");
}

/** Classes of characters, which have those of all languages in Python, and no umlauts in browsers. */
const CLASSES = /\\[wdb]/i;

/** Python's patterns are almost those of browsers. The backend validates the others. */
function matchesPattern(pattern: string, value: string): boolean {
  if (CLASSES.test(pattern) && /[^\0-\x7f]/.test(value)) {
    return true;
  }
  try {
    return new RegExp(pattern, "u").test(value);
  } catch {
    return true;
  }
}

function validateNumber(field: NumberField, value: unknown): string {
  if (field.allowsText && typeof value === "string") {
    return "";
  }
  const number = isLargeInteger(value) ? Number(value) : value;
  if (typeof number !== "number" || !Number.isFinite(number) || (field.integer && !Number.isInteger(number))) {
    return expected(field.integer ? "an integer" : "a number", value);
  }
  const { min, max, exclusiveMin, exclusiveMax, multipleOf } = field;
  const tooLow = min !== undefined ? number < min : exclusiveMin !== undefined && number <= exclusiveMin;
  const tooHigh = max !== undefined ? number > max : exclusiveMax !== undefined && number >= exclusiveMax;
  if (tooLow || tooHigh) {
    return expected(rangeOf(field), value);
  }
  // the remainder of a decimal is never exact
  const quotient = multipleOf ? number / multipleOf : 0;
  return Math.abs(quotient - Math.round(quotient)) > 1e-9
    ? expected(`a multiple of ${multipleOf}`, value)
    : "";
}

/** The range of a number field in words; "" without limits. */
export function rangeOf({ min, max, exclusiveMin, exclusiveMax }: NumberField): string {
  const format = (number: number) => number.toLocaleString("en");
  if (min !== undefined && max !== undefined) {
    return `${format(min)} to ${format(max)}`;
  }
  const low =
    min !== undefined
      ? `at least ${format(min)}`
      : exclusiveMin !== undefined
        ? `above ${format(exclusiveMin)}`
        : "";
  const high =
    max !== undefined
      ? `at most ${format(max)}`
      : exclusiveMax !== undefined
        ? `below ${format(exclusiveMax)}`
        : "";
  return [low, high].filter(Boolean).join(" and ");
}

function validateLength(
  length: number,
  min: number | undefined,
  max: number | undefined,
  singular: string,
  plural: string,
): string {
  const count = (number: number) => `${number} ${number === 1 ? singular : plural}`;
  if (min !== undefined && length < min) {
    return `expected at least ${count(min)}, got ${length}`;
  }
  return max !== undefined && length > max ? `expected at most ${count(max)}, got ${length}` : "";
}

/** Whether a text is an integer that a number of a browser cannot hold. It stays a text, which the backend
 * reads as a number. */
function isLargeInteger(value: unknown): boolean {
  return typeof value === "string" && /^[+-]?\d+$/.test(value) && !Number.isSafeInteger(Number(value));
}

/** The value of a number field for what a viewer typed: a number if it is one, else the string itself,
 * so that no input is lost; undefined if it is empty. `done`: the viewer has left the input. */
export function parseNumber(text: string, done: boolean): unknown {
  const trimmed = text.trim();
  if (trimmed === "") {
    return undefined;
  }
  const number = Number(trimmed);
  const isDecimal = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed);
  if (isLargeInteger(trimmed)) {
    return trimmed;
  }
  if (isDecimal && Number.isFinite(number) && (done || String(number) === text)) {
    return number;
  }
  return text;
}

/** The values with one changed. An empty value removes the key, so that the default applies. */
export function withValue(
  values: Values,
  field: Pick<Field, "name" | "nullable" | "default">,
  value: unknown,
): Values {
  const { [field.name]: _, ...others } = values;
  if (!isEmpty(value)) {
    return { ...values, [field.name]: value };
  }
  // an explicit null, where the default is another value
  return field.nullable && !isEmpty(field.default) ? { ...values, [field.name]: null } : others;
}

export function isObject(value: unknown): value is Values {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function expected(what: string, value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return `expected ${what}, got ${text.length <= 60 ? text : `${text.slice(0, 57)}...`}`;
}
