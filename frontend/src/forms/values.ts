// Values of a form's fields: whether they are allowed, and what a person's text means.
import type { PathKind } from "./document";
import type { Field, NumberField, TextField } from "./fields";

export type Values = Record<string, unknown>;

export interface CheckOptions {
  /** A text with a template variable stands for any value. */
  variables?: boolean;
}

const VARIABLE = /\$\w+|\$\{[^}]+\}|\[\[[^\]]+\]\]/;

/** Whether a value holds a template variable, as `$name`, `${name}` or `[[name]]`. */
export function hasVariable(value: unknown): boolean {
  return typeof value === "string" && VARIABLE.test(value);
}

/** Whether nothing was filled in: the default counts then. */
export function isEmpty(value: unknown): boolean {
  return value === undefined || value === null || value === "";
}

/** What is wrong with a value, as a sentence; "" when nothing is. */
export function check(field: Field, value: unknown, options: CheckOptions = {}): string {
  if (isEmpty(value) || field.kind === "secret") {
    return field.required && isEmpty(value) && field.kind !== "secret" ? `${field.label} is needed` : "";
  }
  if (options.variables && hasVariable(value)) {
    return "";
  }
  switch (field.kind) {
    case "text":
      return checkText(field, value);
    case "number":
      return checkNumber(field, value);
    case "switch":
      return typeof value === "boolean" ? "" : `${shown(value)} is neither true nor false`;
    case "select":
      return field.options.some((option) => option.value === value)
        ? ""
        : `${shown(value)} is none of ${field.options.map((option) => option.label).join(", ")}`;
    case "list":
      return Array.isArray(value) ? checkLength(field.minItems, field.maxItems, value.length, "entries") : `${shown(value)} is no list`;
    case "map":
    case "group":
      return isObject(value) ? "" : `${shown(value)} is no object`;
    case "union":
      return isObject(value) && field.branches.some((branch) => branch.value === value[field.tag])
        ? ""
        : `${shown(isObject(value) ? value[field.tag] : value)} is none of ${field.branches.map((branch) => branch.value).join(", ")}`;
    default:
      return "";
  }
}

/** Everything that is wrong, deep inside too: sentences by the field's place, `tls.caFile`. */
export function problems(fields: Field[], values: Values, options: CheckOptions = {}, place = ""): Record<string, string> {
  const found: Record<string, string> = {};
  for (const field of fields) {
    Object.assign(found, problemsOf(field, values[field.name], options, place + field.name));
  }
  return found;
}

function problemsOf(field: Field, value: unknown, options: CheckOptions, place: string): Record<string, string> {
  const problem = check(field, value, options);
  if (problem) {
    return { [place]: problem };
  }
  if (field.kind === "list" && Array.isArray(value)) {
    return Object.assign({}, ...value.map((each, index) => problemsOf(field.item, each, options, `${place}[${index}]`)));
  }
  if (!isObject(value)) {
    return {};
  }
  if (field.kind === "map") {
    return Object.assign({}, ...Object.entries(value).map(([key, each]) => problemsOf(field.item, each, options, `${place}.${key}`)));
  }
  if (field.kind === "group") {
    return problems(field.fields, value, options, `${place}.`);
  }
  if (field.kind === "union") {
    const branch = field.branches.find((each) => each.value === value[field.tag]);
    return problems(branch?.fields ?? [], value, options, `${place}.`);
  }
  return {};
}

const SEGMENT = /^[A-Za-z0-9_\-=.]+$/;

function isSegment(text: string): boolean {
  return SEGMENT.test(text) && text !== "." && text !== "..";
}

const PATHS: Partial<Record<PathKind, { allows: (text: string) => boolean; says: string }>> = {
  segment: { allows: isSegment, says: "letters, digits and _ - = ." },
  rest: { allows: (text) => text.split("/").every(isSegment), says: "letters, digits and _ - = . with single slashes between them" },
};

function checkText(field: TextField, value: unknown): string {
  if (typeof value !== "string") {
    return `${shown(value)} is no text`;
  }
  const path = field.path && PATHS[field.path];
  if (path && !path.allows(value)) {
    return `${shown(value)}: allowed are ${path.says}`;
  }
  if (field.pattern && !matches(field.pattern, value)) {
    return `${shown(value)} does not match ${field.pattern}`;
  }
  return checkLength(field.minLength, field.maxLength, value.length, "characters");
}

/** Python's patterns are almost those of browsers; the backend judges what is not. */
function matches(pattern: string, value: string): boolean {
  try {
    return new RegExp(pattern, "u").test(value);
  } catch {
    return true;
  }
}

function checkNumber(field: NumberField, value: unknown): string {
  if (field.orText && typeof value === "string") {
    return "";
  }
  const what = field.integer ? "a whole number" : "a number";
  if (typeof value !== "number" || !Number.isFinite(value) || (field.integer && !Number.isInteger(value))) {
    return `${shown(value)} is not ${what}`;
  }
  const { min, max, above, below, multipleOf } = field;
  const low = min !== undefined ? value < min : above !== undefined && value <= above;
  const high = max !== undefined ? value > max : below !== undefined && value >= below;
  if (low || high) {
    return `${value}: allowed is ${rangeOf(field)}`;
  }
  // a remainder of decimals is never exact
  const parts = multipleOf ? value / multipleOf : 0;
  return Math.abs(parts - Math.round(parts)) > 1e-9 ? `${value} is no multiple of ${multipleOf}` : "";
}

/** What numbers are allowed, as a sentence has it; "" when all are. */
export function rangeOf({ min, max, above, below }: NumberField): string {
  const show = (number: number) => number.toLocaleString("en");
  if (min !== undefined && max !== undefined) {
    return `${show(min)} to ${show(max)}`;
  }
  const low = min !== undefined ? `at least ${show(min)}` : above !== undefined ? `above ${show(above)}` : "";
  const high = max !== undefined ? `at most ${show(max)}` : below !== undefined ? `below ${show(below)}` : "";
  return [low, high].filter(Boolean).join(", ");
}

function checkLength(least: number | undefined, most: number | undefined, length: number, what: string): string {
  if (least !== undefined && length < least) {
    return `${length} ${what}; at least ${least}`;
  }
  return most !== undefined && length > most ? `${length} ${what}; at most ${most}` : "";
}

/** What a person's text means in a field of numbers: a number where it is one, else the text itself,
 * so that nothing typed is lost; undefined for nothing. `done`: the person has left the box. */
export function numberFrom(text: string, done: boolean): unknown {
  const trimmed = text.trim();
  if (trimmed === "") {
    return undefined;
  }
  const number = Number(trimmed);
  const isDecimal = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed);
  if (isDecimal && Number.isFinite(number) && (done || String(number) === text)) {
    return number;
  }
  return text;
}

/** The values with one changed; nothing in it, and the key goes, so that the default counts. */
export function withValue(values: Values, field: Pick<Field, "name" | "nullable" | "default">, value: unknown): Values {
  const { [field.name]: _, ...others } = values;
  if (!isEmpty(value)) {
    return { ...values, [field.name]: value };
  }
  // "none" has to be said where the default is something
  return field.nullable && !isEmpty(field.default) ? { ...values, [field.name]: null } : others;
}

export function isObject(value: unknown): value is Values {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}
