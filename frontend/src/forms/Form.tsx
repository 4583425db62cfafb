// A form drawn from fields with the host's widgets. Its values are the caller's; it keeps none.
import * as React from "react";

import { ListView, MapView } from "./collections";
import type { Field, GroupField, JsonField, SelectField, UnionField } from "./fields";
import { check, hasVariable, isEmpty, isObject, numberFrom, rangeOf, withValue, type Values } from "./values";
import type { SecretStore, Widgets } from "./widgets";

export interface FormContext {
  widgets: Widgets;
  /** Begins the ids of the boxes; different for each form of a page. */
  prefix: string;
  disabled?: boolean;
  secrets?: SecretStore;
  /** Values for a field, as its user types. */
  suggest?: (field: string, typed: string) => Promise<string[]>;
  /** Names of template variables; given, a variable stands for any value. */
  variables?: string[];
  /** Something is complete: a box was left, a choice made. */
  onDone?: () => void;
}

export interface FormProps extends FormContext {
  fields: Field[];
  values: Values;
  onChange: (values: Values) => void;
}

export function Form({ fields, values, onChange, ...context }: FormProps) {
  return <Fields fields={fields} values={values} onChange={onChange} context={context} place="" />;
}

interface FieldsProps {
  fields: Field[];
  values: Values;
  onChange: (values: Values) => void;
  context: FormContext;
  place: string;
}

function Fields({ fields, values, onChange, context, place }: FieldsProps) {
  return (
    <>
      {fields.map((field) => (
        <LabelledField
          key={field.name}
          field={field}
          value={values[field.name]}
          onChange={(value) => onChange(withValue(values, field, value))}
          context={context}
          place={place + field.name}
        />
      ))}
    </>
  );
}

export interface FieldProps<F extends Field = Field> {
  field: F;
  value: unknown;
  onChange: (value: unknown) => void;
  context: FormContext;
  place: string;
}

const WIDE = new Set<Field["kind"]>(["list", "map", "group", "union", "json"]);

function LabelledField(props: FieldProps) {
  const { field, value, context, place } = props;
  const [left, setLeft] = React.useState(false);
  const problem = check(field, value, { variables: context.variables !== undefined });
  const range = field.kind === "number" ? rangeOf(field) : "";
  const leave = () => {
    setLeft(true);
    context.onDone?.();
  };
  return (
    <context.widgets.Row
      id={`${context.prefix}-${place}`}
      label={field.label}
      help={[field.help, range && `(${range})`].filter(Boolean).join(" ")}
      required={field.required}
      problem={left || !isEmpty(value) ? problem : ""}
      wide={WIDE.has(field.kind)}
    >
      <FieldView {...props} context={{ ...context, onDone: leave }} />
    </context.widgets.Row>
  );
}

/** What edits one value, without its label. */
export function FieldView(props: FieldProps) {
  const { field, value, onChange, context, place } = props;
  const { widgets, secrets } = context;
  const box = {
    id: `${context.prefix}-${place}`,
    label: field.label,
    disabled: context.disabled,
    placeholder: field.placeholder,
    invalid: !isEmpty(value) && check(field, value, { variables: context.variables !== undefined }) !== "",
    onDone: context.onDone,
  };
  switch (field.kind) {
    case "text":
    case "number":
      return <TextView {...props} />;
    case "switch":
      return hasVariable(value) ? (
        <TextView {...props} />
      ) : (
        <widgets.Switch {...box} value={Boolean(value ?? field.default)} onChange={onChange} />
      );
    case "select":
      return <SelectView {...props} field={field} />;
    case "secret":
      return secrets ? (
        <widgets.Secret
          {...box}
          isSet={secrets.isSet(field.name)}
          value={secrets.value(field.name)}
          onChange={(text) => secrets.set(field.name, text)}
          onReset={() => secrets.reset(field.name)}
          multiline={field.multiline}
        />
      ) : null;
    case "list":
      return <ListView {...props} field={field} />;
    case "map":
      return <MapView {...props} field={field} />;
    case "group":
      return <GroupView {...props} field={field} />;
    case "union":
      return <UnionView {...props} field={field} />;
    case "json":
      return <JsonView {...props} field={field} />;
  }
}

/** A box of text: also for numbers, and for what an older version saved in another type. */
function TextView({ field, value, onChange, context, place }: FieldProps) {
  const { widgets, suggest } = context;
  const numeric = field.kind === "number";
  const read = (text: string, done: boolean) => (numeric ? numberFrom(text, done) : text);
  const text = isEmpty(value) ? "" : typeof value === "string" ? value : typeof value === "object" ? JSON.stringify(value) : String(value);
  const leave = () => {
    if (numeric && read(text, true) !== value) {
      onChange(read(text, true));
    }
    context.onDone?.();
  };
  const box = {
    id: `${context.prefix}-${place}`,
    label: field.label,
    disabled: context.disabled,
    placeholder: field.placeholder,
    invalid: !isEmpty(value) && check(field, value, { variables: context.variables !== undefined }) !== "",
    onDone: leave,
    value: text,
    onChange: (typed: string) => onChange(read(typed, false)),
  };
  if ((field.kind === "text" || numeric) && field.suggest && suggest) {
    const load = async (typed: string) => {
      const variables = (context.variables ?? []).map((name) => `$${name}`).filter((name) => name.includes(typed));
      return [...variables, ...(await suggest(field.name, typed))];
    };
    return <widgets.Suggest {...box} onChange={(typed) => onChange(read(typed, true))} load={load} />;
  }
  return <widgets.Text {...box} numeric={numeric} multiline={field.kind === "text" && field.multiline} />;
}

function SelectView({ field, value, onChange, context, place }: FieldProps<SelectField>) {
  const { widgets, variables } = context;
  const chosen = isEmpty(value) ? field.default : value;
  const choices = field.options.map((option) => ({ key: JSON.stringify(option.value), label: option.label, help: option.help }));
  for (const name of variables ?? []) {
    choices.push({ key: JSON.stringify(`$${name}`), label: `$${name}`, help: "variable" });
  }
  const key = isEmpty(chosen) ? "" : JSON.stringify(chosen);
  if (key && !choices.some((choice) => choice.key === key)) {
    choices.push({ key, label: String(chosen), help: hasVariable(chosen) ? "variable" : "not allowed (any more)" });
  }
  const pick = (picked: string | undefined) => {
    onChange(picked === undefined ? undefined : readKey(picked));
    context.onDone?.();
  };
  return (
    <widgets.Select
      id={`${context.prefix}-${place}`}
      label={field.label}
      disabled={context.disabled}
      placeholder={field.placeholder || "Choose"}
      invalid={!isEmpty(value) && check(field, value, { variables: variables !== undefined }) !== ""}
      value={key}
      choices={choices}
      onChange={pick}
      clearable={field.nullable || (!isEmpty(value) && !field.required && isEmpty(field.default))}
      custom={variables !== undefined}
    />
  );
}

/** A choice's key is JSON; what a person typed is itself. */
function readKey(key: string): unknown {
  try {
    return JSON.parse(key);
  } catch {
    return key;
  }
}

function GroupView({ field, value, onChange, context, place }: FieldProps<GroupField>) {
  const { widgets } = context;
  const values = isObject(value) ? value : isObject(field.default) ? field.default : undefined;
  const isThere = values !== undefined || !field.nullable;
  const turn = (on: boolean) => {
    onChange(on ? { ...field.constants } : undefined);
    context.onDone?.();
  };
  return (
    <>
      {field.nullable ? (
        <widgets.Switch id={`${context.prefix}-${place}`} label={field.label} disabled={context.disabled} value={isThere} onChange={turn} />
      ) : null}
      {isThere ? (
        <widgets.Group>
          <Fields
            fields={field.fields}
            values={values ?? {}}
            onChange={(next) => onChange({ ...field.constants, ...next })}
            context={context}
            place={`${place}.`}
          />
        </widgets.Group>
      ) : null}
    </>
  );
}

function UnionView({ field, value, onChange, context, place }: FieldProps<UnionField>) {
  const { widgets } = context;
  const values = isObject(value) ? value : isObject(field.default) ? field.default : {};
  const tag = String(values[field.tag] ?? "");
  const branch = field.branches.find((each) => each.value === tag);
  // what was filled in for another branch comes back with it
  const others = React.useRef<Record<string, Values>>({});
  const pick = (key: string | undefined) => {
    others.current[tag] = values;
    onChange(key === undefined ? undefined : { ...others.current[key], [field.tag]: key });
    context.onDone?.();
  };
  const choices = field.branches.map((each) => ({ key: each.value, label: each.label, help: each.help }));
  if (tag && !branch) {
    choices.push({ key: tag, label: tag, help: "not allowed (any more)" });
  }
  return (
    <>
      <widgets.Select
        id={`${context.prefix}-${place}`}
        label={field.label}
        disabled={context.disabled}
        placeholder={field.nullable ? "None" : "Choose"}
        value={tag}
        choices={choices}
        onChange={pick}
        clearable={field.nullable}
        invalid={tag !== "" && !branch}
      />
      {branch && branch.fields.length ? (
        <widgets.Group>
          <Fields fields={branch.fields} values={values} onChange={onChange} context={context} place={`${place}.`} />
        </widgets.Group>
      ) : null}
    </>
  );
}

/** What no widget fits, as JSON. The text is kept while it is none. */
function JsonView({ field, value, onChange, context, place }: FieldProps<JsonField>) {
  const { widgets } = context;
  const [draft, setDraft] = React.useState<string>();
  const shown = value ?? field.default ?? undefined;
  const wrong = draft === undefined ? "" : parse(draft, field).wrong;
  const change = (text: string) => {
    setDraft(text);
    const found = parse(text, field);
    if (!found.wrong) {
      onChange(found.value);
    }
  };
  const leave = () => {
    if (!wrong) {
      setDraft(undefined);
    }
    context.onDone?.();
  };
  return (
    <>
      <widgets.Text
        id={`${context.prefix}-${place}`}
        label={field.label}
        disabled={context.disabled}
        placeholder={field.placeholder || "JSON"}
        multiline={field.objects}
        value={draft ?? (shown === undefined ? "" : JSON.stringify(shown, null, field.objects ? 1 : undefined))}
        invalid={wrong !== ""}
        onChange={change}
        onDone={leave}
      />
      {wrong ? <div role="alert">Not JSON: {wrong}</div> : null}
    </>
  );
}

function parse(text: string, { objects }: JsonField): { value?: unknown; wrong: string } {
  try {
    const value: unknown = text.trim() === "" ? undefined : JSON.parse(text);
    return objects && !isObject(value) ? { wrong: "not an object" } : { value, wrong: "" };
  } catch (error) {
    return { wrong: (error as Error).message };
  }
}
