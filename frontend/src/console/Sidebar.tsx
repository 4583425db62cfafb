// A form for each stream and query, and one for the data source's settings.

import * as React from "react";
import { useMemo, useState } from "react";
import { fieldsOf } from "../forms/fields";
import { Form } from "../forms/Form";
import {
  findSource,
  parsePluginSchema,
  type PluginSchema,
  type QuerySpec,
  type Source,
} from "../forms/pluginSchema";
import { validateAll, type Values } from "../forms/values";
import { htmlWidgets } from "./htmlWidgets";
import { type Store, USERS } from "./store";

export function Sidebar({
  store,
  open,
  onDone,
}: {
  store: Store;
  open: boolean;
  onDone: () => void;
}): React.ReactElement {
  const hello = store.hello;
  const schema = useMemo(() => parse(hello?.forms), [hello?.forms]);
  const source = schema && hello ? findSource(schema, hello.settings) : undefined;
  return (
    <aside className={`side ${open ? "open" : ""}`}>
      <h2>Streams and queries</h2>
      {source?.error ? <p className="problem">{source.error}</p> : null}
      {(source?.queries ?? []).map((spec) => (
        <QueryCard key={`${source!.name}/${spec.name}`} store={store} spec={spec} onDone={onDone} />
      ))}
      <h2>Settings</h2>
      {schema && hello ? (
        <Settings key={JSON.stringify(hello.settings)} store={store} schema={schema} />
      ) : null}
    </aside>
  );
}

function parse(value: unknown): PluginSchema | undefined {
  try {
    return value ? parsePluginSchema(value) : undefined;
  } catch {
    return undefined;
  }
}

function QueryCard({
  store,
  spec,
  onDone,
}: {
  store: Store;
  spec: QuerySpec;
  onDone: () => void;
}): React.ReactElement {
  const fields = useMemo(() => fieldsOf(spec.schema, { paths: spec.fields, suggest: spec.suggest }), [spec]);
  const [values, setValues] = useState<Values>({});
  const [error, setError] = useState("");
  const suggest = async (field: string, typed: string): Promise<string[]> => {
    const params = new URLSearchParams({ stream: spec.name, field, typed, values: JSON.stringify(values) });
    const answer = await store.connection.request({
      type: "resource",
      path: `forms/suggest?${params.toString()}`,
      user: USERS[store.userName],
    });
    const suggested: unknown =
      answer.error || Number(answer.status) !== 200 ? [] : JSON.parse(answer.data ?? "[]");
    return Array.isArray(suggested) ? suggested.map(String) : [];
  };
  const run = (event: React.FormEvent): void => {
    event.preventDefault();
    const errors = Object.entries(validateAll(fields, values));
    setError(errors.map(([path, text]) => `${path}: ${text}`).join("; "));
    if (!errors.length) {
      store.addPanel("", { ...values, queryType: spec.name });
      onDone();
    }
  };
  return (
    <form className="card" onSubmit={run} data-query={spec.name}>
      <h3>{spec.name}</h3>
      <code>{spec.pattern ?? "query"}</code>
      {spec.help ? <p>{spec.help}</p> : null}
      <Form
        fields={fields}
        values={values}
        onChange={setValues}
        widgets={htmlWidgets}
        prefix={`query-${spec.name}`}
        suggest={suggest}
      />
      {error ? (
        <p className="problem" role="alert">
          {error}
        </p>
      ) : null}
      <button type="submit" className="primary">
        Run
      </button>
    </form>
  );
}

function Settings({ store, schema }: { store: Store; schema: PluginSchema }): React.ReactElement {
  const hello = store.hello!;
  const [values, setValues] = useState<Values>(hello.settings);
  const [typed, setTyped] = useState<Record<string, string>>({});
  const result = store.saveResult;
  const source = findSource(schema, values);
  const fields = useMemo(() => fieldsOf(source?.settings ?? {}), [source]);
  const save = async (event: React.FormEvent): Promise<void> => {
    event.preventDefault();
    const answer = await store.connection.request({ type: "save", settings: values, secrets: typed });
    store.saveResult = { ok: answer.ok === true, text: answer.error ?? answer.message ?? "" };
    setTyped({});
    store.changed.emit();
  };
  return (
    <form className="card" onSubmit={(event) => void save(event)} data-settings>
      {schema.sourceSetting ? (
        <SourceSelect
          schema={schema}
          source={source}
          onSelect={(name) => setValues({ [schema.sourceSetting!]: name })}
        />
      ) : null}
      {source?.help ? <p>{source.help}</p> : null}
      <Form
        // fields of another source may have the same names
        key={source?.name}
        fields={fields}
        values={values}
        onChange={setValues}
        widgets={htmlWidgets}
        prefix="settings"
        secrets={{
          isSet: (name) => hello.secrets.includes(name) && typed[name] === undefined,
          value: (name) => typed[name] ?? "",
          set: (name, text) => setTyped({ ...typed, [name]: text }),
          reset: (name) => setTyped({ ...typed, [name]: "" }),
        }}
      />
      <button type="submit" className="primary">
        Save &amp; test
      </button>
      {result ? (
        <p className={result.ok ? "good" : "problem"} role="status">
          {result.text}
        </p>
      ) : null}
    </form>
  );
}

function SourceSelect({
  schema,
  source,
  onSelect,
}: {
  schema: PluginSchema;
  source: Source | undefined;
  onSelect: (name: string) => void;
}): React.ReactElement {
  return (
    <div className="field">
      <label htmlFor="settings-source">{schema.sourceSetting}</label>
      <select
        id="settings-source"
        value={source?.name ?? ""}
        onChange={(event) => onSelect(event.currentTarget.value)}
      >
        {schema.sources.map((each) => (
          <option key={each.name} value={each.name} disabled={Boolean(each.error)} title={each.error}>
            {each.name}
          </option>
        ))}
      </select>
    </div>
  );
}
