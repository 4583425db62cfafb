// The form of a panel's query, made from the author's streams and Query classes.
import * as React from "react";
import type { QueryEditorProps } from "@grafana/data";
import { getDataSourceSrv, getTemplateSrv } from "@grafana/runtime";
import { Alert, InlineField, InlineFieldRow, InlineSwitch, Input, RadioButtonGroup } from "@grafana/ui";

import type { StreamDataSource } from "../datasource";
import { fieldsOf, jsonObjectField } from "../forms/fields";
import { Form } from "../forms/Form";
import { findQuery, findSource, type PluginSchema, type QuerySpec, type Source } from "../forms/pluginSchema";
import { helpText } from "../forms/HelpText";
import type { Widgets } from "../forms/widgets";
import type { StreamQuery, StreamSettings } from "../types";
import { FieldBody } from "./FieldBody";
import { grafanaWidgets } from "./grafanaWidgets";
import { COMMON_KEYS, streamFields, withStreamFields } from "./queryFields";
import { usePluginSchema } from "./usePluginSchema";

type Props = QueryEditorProps<StreamDataSource, StreamQuery, StreamSettings>;

const WIDTH = 24;
const LABEL_WIDTH = 14;
/** Longer labels have automatic width. */
const MAX_LABEL_LENGTH = 12;

const widgets: Widgets = {
  ...grafanaWidgets(WIDTH),
  Row: ({ id, label, help, required, error, wide, children }) => (
    <div style={wide ? { flexBasis: "100%" } : undefined}>
      <InlineField
        label={required ? `${label} *` : label}
        tooltip={helpText(help)}
        labelWidth={label.length > MAX_LABEL_LENGTH ? "auto" : LABEL_WIDTH}
        invalid={error !== ""}
        error={error}
        htmlFor={id}
      >
        <FieldBody>{children}</FieldBody>
      </InlineField>
    </div>
  ),
};

const JOINS = [
  {
    value: false,
    label: "Stock",
    description: "Grafana's own buffer, one for all panels: less memory, but rows are lost where live rows begin and in outages",
  },
  { value: true, label: "Exact", description: "No row is missing or duplicated, even after an outage" },
];

const STATIC = "Grafana evaluates the panel's expression, and with it this query, once for each refresh";

export function QueryEditor(props: Props) {
  const { schema, error } = usePluginSchema(props.datasource.type);
  if (schema) {
    return <QueryForm {...props} schema={schema} />;
  }
  return error ? <JsonQuery {...props} error={`No query form: ${error}`} /> : null;
}

function QueryForm({ schema, ...props }: Props & { schema: PluginSchema }) {
  const { query, datasource, onChange, onRunQuery } = props;
  const settings: StreamSettings = getDataSourceSrv().getInstanceSettings(datasource.uid)?.jsonData ?? {};
  const source = findSource(schema, settings);
  const spec = findQuery(source, query.queryType);
  useFirstStream(source, props);

  const changed = React.useRef(false);
  const change = (next: StreamQuery) => {
    changed.current = true;
    onChange(next);
  };
  const run = () => {
    if (changed.current) {
      changed.current = false;
      onRunQuery();
    }
  };
  const set = (part: Partial<StreamQuery>) => {
    change({ ...query, ...part });
    run();
  };
  if (!source || source.error) {
    const error = source
      ? `${source.name} cannot be used: ${source.error}`
      : `This plugin has no source ${String(settings[schema.sourceSetting ?? ""])}`;
    return <JsonQuery {...props} error={error} />;
  }
  const prefix = `query-${datasource.uid}-${query.refId}`;
  return (
    <div>
      <InlineFieldRow>
        <StreamField
          source={source}
          query={query}
          prefix={prefix}
          onChange={(queryType) => set({ queryType, ...joinOf(query, spec, findQuery(source, queryType)) })}
        />
        <InlineField
          label="With Streaming"
          tooltip={hasExpression(props) ? STATIC : "Append live rows to the history"}
          invalid={hasExpression(props)}
          error="No live rows with an expression"
          htmlFor={`${prefix}-withStreaming`}
        >
          <FieldBody>
            <InlineSwitch
              id={`${prefix}-withStreaming`}
              aria-label="With Streaming"
              value={query.withStreaming !== false}
              onChange={(event) => set({ withStreaming: event.currentTarget.checked })}
            />
          </FieldBody>
        </InlineField>
        <InlineField label="Join" tooltip="How live rows join the history">
          <FieldBody>
            <RadioButtonGroup
              options={JOINS}
              value={query.exact === true}
              disabled={query.withStreaming === false}
              onChange={(exact) => set({ exact })}
            />
          </FieldBody>
        </InlineField>
        <InlineField
          label="Alias"
          tooltip="Name of the series; may contain template variables"
          htmlFor={`${prefix}-alias`}
        >
          <Input
            id={`${prefix}-alias`}
            aria-label="Alias"
            width={14}
            value={String(query.alias ?? "")}
            onChange={(event) => change({ ...query, alias: event.currentTarget.value || undefined })}
            onBlur={run}
            onKeyDown={(event) => (event.key === "Enter" ? run() : undefined)}
          />
        </InlineField>
      </InlineFieldRow>
      {spec ? (
        <SpecForm
          spec={spec}
          query={query}
          datasource={datasource}
          prefix={prefix}
          onChange={change}
          onDone={run}
        />
      ) : null}
      {!spec && query.queryType ? (
        <JsonQuery {...props} error={`This data source has no stream ${query.queryType}`} />
      ) : null}
    </div>
  );
}

/** The default of the next stream, if the query has that of its present one. A query that was saved without
 * the key is stock. */
function joinOf(query: StreamQuery, spec: QuerySpec | undefined, next: QuerySpec | undefined): Partial<StreamQuery> {
  return "exact" in query && query.exact === !!spec?.exact ? { exact: !!next?.exact } : {};
}

/** Whether the panel has an expression, which answers its queries in place of their data sources. */
function hasExpression({ query, queries }: Props): boolean {
  return query.withStreaming !== false && !!queries?.some(({ datasource }) => datasource?.type === "__expr__");
}

/** Not "Stream": a field of a stream may have that name. */
const LABEL = "Query type";

interface StreamFieldProps {
  source: Source;
  query: StreamQuery;
  prefix: string;
  onChange: (name: string) => void;
}

/** Selects the stream or the `@query` method. */
function StreamField({ source, query, prefix, onChange }: StreamFieldProps) {
  const spec = findQuery(source, query.queryType);
  const selected = spec?.name ?? query.queryType ?? "";
  const choices = (source.queries ?? []).map(({ name, help }) => ({
    key: name,
    label: name || "(no type)",
    help,
  }));
  if (selected && !spec) {
    choices.push({ key: selected, label: selected, help: "not in this data source" });
  }
  return (
    <widgets.Row
      id={`${prefix}-stream`}
      label={LABEL}
      help={spec?.help ?? "The stream to follow"}
      required={false}
      error=""
      wide={false}
    >
      <widgets.Select
        id={`${prefix}-stream`}
        label={LABEL}
        placeholder="Choose a stream"
        invalid={!spec}
        value={selected}
        choices={choices}
        onChange={(name) => name !== undefined && onChange(name)}
      />
    </widgets.Row>
  );
}

interface SpecFormProps {
  spec: QuerySpec;
  query: StreamQuery;
  datasource: StreamDataSource;
  prefix: string;
  onChange: (query: StreamQuery) => void;
  onDone: () => void;
}

function SpecForm({ spec, query, datasource, prefix, onChange, onDone }: SpecFormProps) {
  const fields = React.useMemo(
    () => fieldsOf(spec.schema, { paths: spec.fields, suggest: spec.suggest }),
    [spec],
  );
  const values = streamFields(query);
  const suggest = async (field: string, typed: string): Promise<string[]> => {
    const others = Object.entries(values).filter(([name]) => name !== field);
    const params = { stream: spec.name, field, typed, values: JSON.stringify(Object.fromEntries(others)) };
    return datasource.getResource("forms/suggest", params, { showErrorAlert: false });
  };
  return (
    <InlineFieldRow>
      <Form
        key={spec.name}
        fields={fields}
        values={values}
        onChange={(changed) => onChange(withStreamFields(query, changed))}
        widgets={widgets}
        prefix={prefix}
        suggest={suggest}
        variables={getTemplateSrv()
          .getVariables()
          .map(({ name }) => name)}
        onDone={onDone}
      />
    </InlineFieldRow>
  );
}

/** A new query follows the first stream without required fields, so that it shows rows. */
function useFirstStream(source: Source | undefined, { query, onChange, onRunQuery }: Props): void {
  React.useEffect(() => {
    const queries = source?.queries ?? [];
    const ready = queries.find(({ schema }) => !schema.required?.length);
    const first = ready ?? queries[0];
    if (first && query.queryType === undefined && Object.keys(streamFields(query)).length === 0) {
      onChange({ exact: !!first.exact, ...query, queryType: first.name });
      if (ready) {
        onRunQuery();
      }
    }
    // only when the editor opens
  }, []);
}

/** Without a form, the query is edited as JSON. */
function JsonQuery({ query, onChange, onRunQuery, error }: Props & { error: string }) {
  const shown = {
    ...Object.fromEntries(COMMON_KEYS.filter((name) => name in query).map((name) => [name, query[name]])),
    ...streamFields(query),
  };
  return (
    <>
      <Alert severity="warning" title={error} />
      <Form
        fields={[jsonObjectField("query", "Query as JSON")]}
        values={{ query: shown }}
        onChange={({ query: edited }) =>
          onChange({ ...withStreamFields(query, {}, COMMON_KEYS), ...(edited as object) })
        }
        widgets={widgets}
        prefix={`query-${query.refId}`}
        onDone={onRunQuery}
      />
    </>
  );
}
