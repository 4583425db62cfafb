// Fields of many entries: lists, and tables of keys and values.
import * as React from "react";

import type { Field, ListField, MapField } from "./fields";
import { FieldView, type FieldProps } from "./Form";
import { isObject, type Values } from "./values";

export function ListView({ field, value, onChange, context, place }: FieldProps<ListField>) {
  const { List, Entry } = context.widgets;
  const entries = entriesOf(value, field.default);
  const change = (next: unknown[]) => onChange(next.length || hasEntries(field.default) ? next : undefined);
  const full = field.maxItems !== undefined && entries.length >= field.maxItems;
  const locked = context.disabled;
  return (
    <List addLabel={`Add to ${field.label}`} onAdd={locked || full ? undefined : () => change([...entries, emptyEntry(field.item)])}>
      {entries.map((entry, index) => (
        <Entry
          key={index}
          removeLabel={`Remove ${field.label} ${index + 1}`}
          onRemove={
            locked
              ? undefined
              : () => {
                  change(entries.filter((_, other) => other !== index));
                  context.onDone?.();
                }
          }
        >
          <FieldView
            field={{ ...field.item, label: `${field.label} ${index + 1}` }}
            value={entry}
            onChange={(next) => change(entries.map((other, place) => (place === index ? (next ?? emptyEntry(field.item)) : other)))}
            context={context}
            place={`${place}[${index}]`}
          />
        </Entry>
      ))}
    </List>
  );
}

function entriesOf(value: unknown, fallback: unknown): unknown[] {
  if (value === undefined || value === null) {
    return Array.isArray(fallback) ? fallback : [];
  }
  // a single value where a list is meant now: an older version of the class saved it
  return Array.isArray(value) ? value : [value];
}

function hasEntries(value: unknown): boolean {
  return Array.isArray(value) ? value.length > 0 : isObject(value) && Object.keys(value).length > 0;
}

type Pair = [key: string, value: unknown];

/** Keys may be empty or doubled while they are typed, so the pairs are kept here until they differ
 * from the value in earnest. */
export function MapView({ field, value, onChange, context, place }: FieldProps<MapField>) {
  const { List, Entry, Text } = context.widgets;
  const saved: Values = isObject(value) ? value : isObject(field.default) ? field.default : {};
  const [kept, setKept] = React.useState<Pair[]>(() => Object.entries(saved));
  const isSame = JSON.stringify(Object.fromEntries(named(kept))) === JSON.stringify(saved);
  const pairs = isSame ? kept : Object.entries(saved);
  const change = (next: Pair[]) => {
    setKept(next);
    const values = Object.fromEntries(named(next));
    onChange(Object.keys(values).length || hasEntries(field.default) ? values : undefined);
  };
  const replace = (index: number, pair: Pair) => change(pairs.map((other, each) => (each === index ? pair : other)));
  const locked = context.disabled;
  return (
    <List addLabel={`Add to ${field.label}`} onAdd={locked ? undefined : () => change([...pairs, ["", emptyEntry(field.item)]])}>
      {pairs.map(([key, entry], index) => (
        <Entry
          key={index}
          removeLabel={`Remove ${field.label} ${index + 1}`}
          onRemove={
            locked
              ? undefined
              : () => {
                  change(pairs.filter((_, other) => other !== index));
                  context.onDone?.();
                }
          }
        >
          <Text
            id={`${context.prefix}-${place}[${index}].key`}
            label={`${field.label} ${index + 1}: name`}
            placeholder="Name"
            disabled={locked}
            invalid={pairs.some(([other], each) => each !== index && other === key)}
            value={key}
            onChange={(text) => replace(index, [text, entry])}
            onDone={context.onDone}
          />
          <FieldView
            field={{ ...field.item, label: `${field.label} ${index + 1}: value` }}
            value={entry}
            onChange={(next) => replace(index, [key, next ?? emptyEntry(field.item)])}
            context={context}
            place={`${place}[${index}]`}
          />
        </Entry>
      ))}
    </List>
  );
}

function named(pairs: Pair[]): Pair[] {
  return pairs.filter(([key]) => key !== "");
}

/** What a new entry is. */
function emptyEntry(item: Field): unknown {
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
