// The entries of lists and tables.
import type { Field } from "./fields";
import { isObject } from "./values";

/** A name and a value of a table. */
export type Pair = [key: string, value: unknown];

export function entriesOf(value: unknown, defaultValue: unknown): unknown[] {
  if (value === undefined || value === null) {
    return Array.isArray(defaultValue) ? defaultValue : [];
  }
  // an older class saved a single value
  return Array.isArray(value) ? value : [value];
}

export function hasEntries(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : isObject(value) && Object.keys(value).length > 0;
}

export function withNames(pairs: Pair[]): Pair[] {
  return pairs.filter(([key]) => key !== "");
}

/** The value of a new entry. */
export function newEntry(item: Field): unknown {
  switch (item.kind) {
    case "text":
      return "";
    case "switch":
      return false;
    case "select":
      return item.options[0]?.value ?? null;
    case "list":
      return [];
    case "map":
      return {};
    case "group":
      return { ...item.constants };
    case "union":
      return { [item.tag]: item.branches[0]?.value };
    default:
      return null;
  }
}
