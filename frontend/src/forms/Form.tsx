// A form: one row for each field, made of the given widgets. The caller owns the values.
import * as React from "react";

import { entriesOf, hasEntries, newEntry, withNames, type Pair } from "./entries";
import type { Field, GroupField, JsonField, ListField, MapField, SelectField, UnionField } from "./fields";
import {
  hasVariable,
  isEmpty,
  isNull,
  isObject,
  parseNumber,
  rangeOf,
  validate,
  withValue,
  type Values,
} from "./values";
import type { SecretStore, Widgets } from "./widgets";

interface FormContext {
  widgets: Widgets;
  /** Prefix of the ids of inputs; unique on the page. */
  prefix: string;
  disabled?: boolean;
  secrets?: SecretStore;
  /** Loads suggested values of a field. */
  suggest?: (field: string, typed: string) => Promise<string[]>;
  /** Names of template variables. If given, a variable is valid in any field. */
  variables?: string[];
  /** The viewer has left an input or chosen an option. */
  onDone?: () => void;
}

interface FieldContext extends FormContext {
  /** What is typed but not a value yet, by the kinds and paths of fields: a closed section has no inputs. */
  drafts: Map<string, unknown>;
}

export interface FormProps extends FormContext {
  fields: Field[];
  values: Values;
  onChange: (values: Values) => void;
}

export function Form({ fields, values, onChange, ...given }: FormProps) {
  const drafts = React.useRef(new Map<string, unknown>());
  const context = { ...given, drafts: drafts.current };
  return <Fields fields={fields} values={values} onChange={onChange} context={context} parent="" />;
}

/** State that outlives its input, as long as the form is open. */
function useDraft<T>({ drafts }: FieldContext, key: string): [T | undefined, (draft: T | undefined) => void] {
  const [draft, setDraft] = React.useState(drafts.get(key) as T | undefined);
  const change = (next: T | undefined) => {
    drafts.set(key, next);
    setDraft(next);
  };
  return [draft, change];
}

/** Moves the drafts of the entries after a removed one to their new paths; the first result is
 * part of the entries' keys, so that they get these drafts. */
function useRemovals({ drafts }: FieldContext, path: string): [number, (index: number) => void] {
  const [removals, setRemovals] = React.useState(0);
  const remove = (index: number) => {
    const moved = [...drafts].flatMap(([key, draft]): [string, unknown][] => {
      const [head, rest = ""] = split(key, `:${path}[`);
      const at = parseInt(rest);
      if (!rest || head.includes(":") || at < index) {
        return [];
      }
      drafts.delete(key);
      return at > index ? [[`${head}:${path}[${at - 1}${rest.slice(String(at).length)}`, draft]] : [];
    });
    moved.forEach(([key, draft]) => drafts.set(key, draft));
    setRemovals(removals + 1);
  };
  return [removals, remove];
}

function split(text: string, separator: string): string[] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}

interface FieldsProps {
  fields: Field[];
  values: Values;
  onChange: (values: Values) => void;
  context: FieldContext;
  parent: string;
}

function Fields({ fields, values, onChange, context, parent }: FieldsProps) {
  const { Section } = context.widgets;
  const rows = (shown: Field[]) =>
    shown.map((field) => (
      <FieldRow
        key={field.name}
        field={field}
        value={values[field.name]}
        onChange={(value) => onChange(withValue(values, field, value))}
        context={context}
        path={parent + field.name}
      />
    ));
  return (
    <>
      {rows(fields.filter((field) => field.section === ""))}
      {sectionsOf(fields).map(([title, members]) => (
        <Section
          key={title}
          title={title}
          about={members.map((field) => field.label).join(", ")}
          isInitiallyOpen={members.some(
            (field) => field.required || !isEmpty(values[field.name]) || context.secrets?.isSet(field.name),
          )}
        >
          {rows(members)}
        </Section>
      ))}
    </>
  );
}

const LAST_SECTION = "Advanced";

/** The sections in the order of their first fields. */
function sectionsOf(fields: Field[]): Array<[title: string, fields: Field[]]> {
  const titles = new Set(fields.map((field) => field.section).filter((title) => title !== ""));
  if (titles.delete(LAST_SECTION)) {
    titles.add(LAST_SECTION);
  }
  return [...titles].map((title) => [title, fields.filter((field) => field.section === title)]);
}

interface FieldProps<F extends Field = Field> {
  field: F;
  value: unknown;
  onChange: (value: unknown) => void;
  context: FieldContext;
  path: string;
}

const WIDE = new Set<Field["kind"]>(["list", "map", "group", "union", "json"]);

function FieldRow(props: FieldProps) {
  const { field, value, context, path } = props;
  const [touched, setTouched] = React.useState(false);
  const range = field.kind === "number" ? rangeOf(field) : "";
  const onDone = () => {
    setTouched(true);
    context.onDone?.();
  };
  return (
    <context.widgets.Row
      id={`${context.prefix}-${path}`}
      label={field.label}
      help={helpWithRange(field.help, range)}
      required={field.required}
      error={touched || !isEmpty(value) ? errorOf(props) : ""}
      wide={WIDE.has(field.kind)}
    >
      <FieldInput {...props} context={{ ...context, onDone }} />
    </context.widgets.Row>
  );
}

/** The range is part of the last sentence of the help. That numbers are not negative is not shown. */
function helpWithRange(help: string, range: string): string {
  if (range === "at least 0") {
    return help;
  }
  if (!range || !help) {
    return help || range.charAt(0).toUpperCase() + range.slice(1);
  }
  return help.endsWith(".") ? `${help.slice(0, -1)} (${range}).` : `${help} (${range})`;
}

/** What an empty input shows. */
function placeholderOf(field: Field, value: unknown): string {
  return isNull(field, value) ? "None" : field.placeholder;
}

/** An object, or the default in place of it. */
function objectOf(field: Field, value: unknown): Values | undefined {
  const shown = isObject(value) || isNull(field, value) ? value : field.default;
  return isObject(shown) ? shown : undefined;
}

function errorOf({ field, value, context }: FieldProps): string {
  return validate(field, value, { variables: context.variables !== undefined });
}

function isInvalid(props: FieldProps): boolean {
  return !isEmpty(props.value) && errorOf(props) !== "";
}

/** The input of one entry of a list or a table, which has no row of its own, and its error. */
function EntryInput(props: FieldProps) {
  return (
    <>
      <FieldInput {...props} />
      {isInvalid(props) ? <div role="alert">{errorOf(props)}</div> : null}
    </>
  );
}

/** The input of one value, without its label. */
function FieldInput(props: FieldProps) {
  const { field, value, onChange, context, path } = props;
  const { widgets, secrets } = context;
  const input = {
    id: `${context.prefix}-${path}`,
    label: field.label,
    disabled: context.disabled,
    placeholder: placeholderOf(field, value),
    invalid: isInvalid(props),
    onDone: context.onDone,
  };
  switch (field.kind) {
    case "text":
    case "number":
      return <TextInput {...props} />;
    case "switch":
      return hasVariable(value) ? (
        <TextInput {...props} />
      ) : (
        <widgets.Switch {...input} value={Boolean(value ?? field.default)} onChange={onChange} />
      );
    case "select":
      return <SelectInput {...props} field={field} />;
    case "secret":
      return secrets ? (
        <widgets.Secret
          {...input}
          isSet={secrets.isSet(field.name)}
          value={secrets.value(field.name)}
          onChange={(text) => secrets.set(field.name, text)}
          onReset={() => secrets.reset(field.name)}
          multiline={field.multiline}
        />
      ) : null;
    case "list":
      return <ListInput {...props} field={field} />;
    case "map":
      return <MapInput {...props} field={field} />;
    case "group":
      return <GroupInput {...props} field={field} />;
    case "union":
      return <UnionInput {...props} field={field} />;
    case "json":
      return <JsonInput {...props} field={field} />;
  }
}

function textOf(value: unknown): string {
  if (isEmpty(value)) {
    return "";
  }
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A text input: also for numbers, and for values of another type that an older class saved. */
function TextInput(props: FieldProps) {
  const { field, value, onChange, context, path } = props;
  const { widgets, suggest } = context;
  const numeric = field.kind === "number";
  const parse = (text: string, done: boolean) => (numeric ? parseNumber(text, done) : text);
  // a suggestion is chosen and the input is left in one event, before the form is drawn again
  const latest = React.useRef(value);
  latest.current = value;
  const change = (next: unknown) => {
    latest.current = next;
    onChange(next);
  };
  const onDone = () => {
    const parsed = parse(textOf(latest.current), true);
    if (numeric && parsed !== latest.current) {
      change(parsed);
    }
    context.onDone?.();
  };
  const input = {
    id: `${context.prefix}-${path}`,
    label: field.label,
    disabled: context.disabled,
    placeholder: placeholderOf(field, value),
    invalid: isInvalid(props),
    onDone,
    value: textOf(value),
    onChange: (typed: string) => change(parse(typed, false)),
  };
  if ((field.kind === "text" || numeric) && field.suggest && suggest) {
    const load = async (typed: string) => {
      const variables = (context.variables ?? [])
        .map((name) => `$${name}`)
        .filter((name) => name.includes(typed));
      return [...new Set([...variables, ...(await suggest(field.name, typed))])];
    };
    return <widgets.Suggest {...input} load={load} />;
  }
  return <widgets.Text {...input} numeric={numeric} multiline={field.kind === "text" && field.multiline} />;
}

function SelectInput(props: FieldProps<SelectField>) {
  const { field, value, onChange, context, path } = props;
  const { widgets, variables } = context;
  const chosen = isEmpty(value) && !isNull(field, value) ? field.default : value;
  const choices = field.options.map((option) => ({
    key: JSON.stringify(option.value),
    label: option.label,
    help: option.help,
  }));
  for (const name of variables ?? []) {
    choices.push({ key: JSON.stringify(`$${name}`), label: `$${name}`, help: "variable" });
  }
  const key = isEmpty(chosen) ? "" : JSON.stringify(chosen);
  if (key && !choices.some((choice) => choice.key === key)) {
    choices.push({
      key,
      label: String(chosen),
      help: hasVariable(chosen) ? "variable" : "not a valid choice",
    });
  }
  const select = (chosen: string | undefined) => {
    onChange(chosen === undefined ? undefined : parseKey(chosen));
    context.onDone?.();
  };
  return (
    <widgets.Select
      id={`${context.prefix}-${path}`}
      label={field.label}
      disabled={context.disabled}
      placeholder={placeholderOf(field, value) || "Choose"}
      invalid={isInvalid(props)}
      value={key}
      choices={choices}
      onChange={select}
      clearable={field.nullable || (!isEmpty(value) && !field.required && isEmpty(field.default))}
      custom={variables !== undefined}
    />
  );
}

/** The key of a choice is JSON; custom text is itself. */
function parseKey(key: string): unknown {
  try {
    return JSON.parse(key);
  } catch {
    return key;
  }
}

function GroupInput({ field, value, onChange, context, path }: FieldProps<GroupField>) {
  const { widgets } = context;
  const values = objectOf(field, value);
  const isOn = values !== undefined || !field.nullable;
  const toggle = (on: boolean) => {
    onChange(on ? { ...field.constants } : undefined);
    context.onDone?.();
  };
  return (
    <>
      {field.nullable ? (
        <widgets.Switch
          id={`${context.prefix}-${path}`}
          label={field.label}
          disabled={context.disabled}
          value={isOn}
          onChange={toggle}
        />
      ) : null}
      {isOn ? (
        <widgets.Group>
          <Fields
            fields={field.fields}
            values={values ?? {}}
            onChange={(next) => onChange({ ...field.constants, ...next })}
            context={context}
            parent={`${path}.`}
          />
        </widgets.Group>
      ) : null}
    </>
  );
}

function UnionInput({ field, value, onChange, context, path }: FieldProps<UnionField>) {
  const { widgets } = context;
  const values = objectOf(field, value) ?? {};
  const tag = String(values[field.tag] ?? "");
  const branch = field.branches.find((each) => each.value === tag);
  // values of the other branches, restored when a branch is selected again
  const [saved = {}, setSaved] = useDraft<Record<string, Values>>(context, `union:${path}`);
  const select = (key: string | undefined) => {
    setSaved({ ...saved, [tag]: values });
    onChange(key === undefined ? undefined : { ...saved[key], [field.tag]: key });
    context.onDone?.();
  };
  const choices = field.branches.map((each) => ({ key: each.value, label: each.label, help: each.help }));
  if (tag && !branch) {
    choices.push({ key: tag, label: tag, help: "not a valid choice" });
  }
  return (
    <>
      <widgets.Select
        id={`${context.prefix}-${path}`}
        label={field.label}
        disabled={context.disabled}
        placeholder={field.nullable ? "None" : "Choose"}
        value={tag}
        choices={choices}
        onChange={select}
        clearable={field.nullable}
        invalid={tag !== "" && !branch}
      />
      {branch && branch.fields.length ? (
        <widgets.Group>
          <Fields
            fields={branch.fields}
            values={values}
            onChange={onChange}
            context={context}
            parent={`${path}.`}
          />
        </widgets.Group>
      ) : null}
    </>
  );
}

/** JSON text. While it is invalid, it is a draft and the value does not change. */
function JsonInput({ field, value, onChange, context, path }: FieldProps<JsonField>) {
  const { widgets } = context;
  const [kept, setDraft] = useDraft<{ text: string; of?: string }>(context, `json:${path}`);
  const shownFor = (each: unknown) => (isNull(field, each) ? null : (each ?? field.default ?? undefined));
  const shown = shownFor(value);
  const draft = kept?.of === JSON.stringify(shown) ? kept?.text : undefined;
  const error = draft === undefined ? "" : parseJson(draft, field).error;
  const change = (text: string) => {
    const parsed = parseJson(text, field);
    const next = parsed.error ? value : withValue({}, field, parsed.value)[field.name];
    setDraft({ text, of: JSON.stringify(shownFor(next)) });
    if (!parsed.error) {
      onChange(parsed.value);
    }
  };
  const onDone = () => {
    if (!error) {
      setDraft(undefined);
    }
    context.onDone?.();
  };
  return (
    <>
      <widgets.Text
        id={`${context.prefix}-${path}`}
        label={field.label}
        disabled={context.disabled}
        placeholder={field.placeholder || "JSON"}
        multiline={field.objectsOnly}
        value={
          draft ?? (shown === undefined ? "" : JSON.stringify(shown, null, field.objectsOnly ? 1 : undefined))
        }
        invalid={error !== ""}
        onChange={change}
        onDone={onDone}
      />
      {error ? <div role="alert">Invalid JSON: {error}</div> : null}
    </>
  );
}

function parseJson(text: string, { objectsOnly }: JsonField): { value?: unknown; error: string } {
  try {
    const value: unknown = text.trim() === "" ? undefined : JSON.parse(text);
    return objectsOnly && !isObject(value)
      ? { error: `expected an object, got ${text.trim()}` }
      : { value, error: "" };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

function ListInput({ field, value, onChange, context, path }: FieldProps<ListField>) {
  const { List, Entry } = context.widgets;
  const entries = isNull(field, value) ? [] : entriesOf(value, field.default);
  const [removals, remove] = useRemovals(context, path);
  const change = (next: unknown[]) => onChange(next.length || hasEntries(field.default) ? next : undefined);
  const isFull = field.maxItems !== undefined && entries.length >= field.maxItems;
  const locked = context.disabled;
  return (
    <List
      addLabel={`Add to ${field.label}`}
      onAdd={locked || isFull ? undefined : () => change([...entries, newEntry(field.item)])}
    >
      {entries.map((entry, index) => (
        <Entry
          key={`${removals} ${index}`}
          removeLabel={`Remove ${field.label} ${index + 1}`}
          onRemove={
            locked
              ? undefined
              : () => {
                  remove(index);
                  change(entries.filter((_, other) => other !== index));
                  context.onDone?.();
                }
          }
        >
          <EntryInput
            field={{ ...field.item, label: `${field.label} ${index + 1}` }}
            value={entry}
            onChange={(next) =>
              change(entries.map((other, at) => (at === index ? (next ?? newEntry(field.item)) : other)))
            }
            context={context}
            path={`${path}[${index}]`}
          />
        </Entry>
      ))}
    </List>
  );
}

/** A table of names and values. Names may be empty or duplicate while they are typed, so the pairs
 * are a draft while they stand for the same value. */
function MapInput({ field, value, onChange, context, path }: FieldProps<MapField>) {
  const { List, Entry, Text } = context.widgets;
  const saved = objectOf(field, value) ?? {};
  const [draft, setDraft] = useDraft<Pair[]>(context, `map:${path}`);
  const isSame = draft && JSON.stringify(Object.fromEntries(withNames(draft))) === JSON.stringify(saved);
  const pairs = isSame ? draft : Object.entries(saved);
  const [removals, remove] = useRemovals(context, path);
  const change = (next: Pair[]) => {
    setDraft(next);
    const values = Object.fromEntries(withNames(next));
    onChange(Object.keys(values).length || hasEntries(field.default) ? values : undefined);
  };
  const replace = (index: number, pair: Pair) =>
    change(pairs.map((other, each) => (each === index ? pair : other)));
  const locked = context.disabled;
  return (
    <List
      addLabel={`Add to ${field.label}`}
      onAdd={locked ? undefined : () => change([...pairs, ["", newEntry(field.item)]])}
    >
      {pairs.map(([key, entry], index) => (
        <Entry
          key={`${removals} ${index}`}
          removeLabel={`Remove ${field.label} ${index + 1}`}
          onRemove={
            locked
              ? undefined
              : () => {
                  remove(index);
                  change(pairs.filter((_, other) => other !== index));
                  context.onDone?.();
                }
          }
        >
          <Text
            id={`${context.prefix}-${path}[${index}].key`}
            label={`${field.label} ${index + 1}: name`}
            placeholder="Name"
            disabled={locked}
            invalid={pairs.some(([other], each) => each !== index && other === key)}
            value={key}
            onChange={(text) => replace(index, [text, entry])}
            onDone={context.onDone}
          />
          <EntryInput
            field={{ ...field.item, label: `${field.label} ${index + 1}: value` }}
            value={entry}
            onChange={(next) => replace(index, [key, next ?? newEntry(field.item)])}
            context={context}
            path={`${path}[${index}]`}
          />
        </Entry>
      ))}
    </List>
  );
}
