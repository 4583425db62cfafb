// What a panel asks, drawn from the author's streams and Query classes.
import * as React from "react";
import type { QueryEditorProps } from "@grafana/data";
import { getDataSourceSrv, getTemplateSrv } from "@grafana/runtime";
import { Alert, InlineField, InlineFieldRow, InlineSwitch, Input, RadioButtonGroup } from "@grafana/ui";

import type { StreamDataSource } from "../datasource";
import { sourceOf, specOf, type PluginDocument, type QuerySpec, type Source } from "../forms/document";
import { fieldsOf, wholeField } from "../forms/fields";
import { Form } from "../forms/Form";
import type { Widgets } from "../forms/widgets";
import type { StreamQuery, StreamSettings } from "../types";
import { Body } from "./Body";
import { boxes } from "./boxes";
import { usePluginDocument } from "./pluginDocument";
import { FORMS_OWN, ownFields, withOwnFields } from "./queryFields";

type Props = QueryEditorProps<StreamDataSource, StreamQuery, StreamSettings>;

const WIDTH = 24;
const LABEL = 14;
/** Characters of a label that has that width; a longer one takes what it needs. */
const SHORT = 12;

const widgets: Widgets = {
  ...boxes(WIDTH),
  Row: ({ id, label, help, required, problem, wide, children }) => (
    <div style={wide ? { flexBasis: "100%" } : undefined}>
      <InlineField
        label={required ? `${label} *` : label}
        tooltip={help || undefined}
        labelWidth={label.length > SHORT ? "auto" : LABEL}
        invalid={problem !== ""}
        error={problem}
        htmlFor={id}
      >
        <Body>{children}</Body>
      </InlineField>
    </div>
  ),
};

const MODES = [
  { value: false, label: "Stock", description: "Grafana's own way: rows may be missing or doubled where history and live rows join" },
  { value: true, label: "Exact", description: "Nothing missing and nothing doubled, also after an outage" },
];

export function QueryEditor(props: Props) {
  const { document, problem } = usePluginDocument(props.datasource.type);
  if (document) {
    return <QueryForm {...props} document={document} />;
  }
  return problem ? <JsonQuery {...props} problem={`There are no forms: ${problem}`} /> : null;
}

function QueryForm({ document, ...props }: Props & { document: PluginDocument }) {
  const { query, datasource, onChange, onRunQuery } = props;
  const settings: StreamSettings = getDataSourceSrv().getInstanceSettings(datasource.uid)?.jsonData ?? {};
  const source = sourceOf(document, settings);
  const spec = specOf(source, query.queryType);
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
    const said = source ? `${source.name} cannot be used: ${source.error}` : `this plugin has no source ${String(settings[document.by ?? ""])}`;
    return <JsonQuery {...props} problem={said} />;
  }
  const prefix = `query-${datasource.uid}-${query.refId}`;
  return (
    <div>
      <InlineFieldRow>
        <StreamField source={source} query={query} prefix={prefix} onChange={(queryType) => set({ queryType })} />
        <InlineField label="With Streaming" tooltip="Live rows follow the history" htmlFor={`${prefix}-withStreaming`}>
          <InlineSwitch
            id={`${prefix}-withStreaming`}
            aria-label="With Streaming"
            value={query.withStreaming !== false}
            onChange={(event) => set({ withStreaming: event.currentTarget.checked })}
          />
        </InlineField>
        <InlineField label="Join" tooltip="How live rows join the history">
          <Body>
            <RadioButtonGroup
              options={MODES}
              value={query.exact === true}
              disabled={query.withStreaming === false}
              onChange={(exact) => set({ exact })}
            />
          </Body>
        </InlineField>
        <InlineField label="Alias" tooltip="The name of the series; may hold template variables" htmlFor={`${prefix}-alias`}>
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
      {spec ? <SpecForm spec={spec} query={query} datasource={datasource} prefix={prefix} onChange={change} onDone={run} /> : null}
      {!spec && query.queryType ? <JsonQuery {...props} problem={`this data source has no stream ${query.queryType}`} /> : null}
    </div>
  );
}

interface StreamFieldProps {
  source: Source;
  query: StreamQuery;
  prefix: string;
  onChange: (name: string) => void;
}

/** Which stream is followed, or which of the author's queries is asked. */
function StreamField({ source, query, prefix, onChange }: StreamFieldProps) {
  const spec = specOf(source, query.queryType);
  const chosen = spec?.name ?? query.queryType ?? "";
  const choices = (source.queries ?? []).map(({ name, help }) => ({ key: name, label: name || "(no type)", help }));
  if (chosen && !spec) {
    choices.push({ key: chosen, label: chosen, help: "not there (any more)" });
  }
  return (
    <widgets.Row id={`${prefix}-stream`} label="Stream" help={spec?.help ?? "What to follow"} required={false} problem="" wide={false}>
      <widgets.Select
        id={`${prefix}-stream`}
        label="Stream"
        placeholder="Choose a stream"
        invalid={!spec}
        value={chosen}
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
  const fields = React.useMemo(() => fieldsOf(spec.schema, { paths: spec.fields, suggest: spec.suggest }), [spec]);
  const values = ownFields(query);
  const suggest = async (field: string, typed: string): Promise<string[]> => {
    const others = Object.entries(values).filter(([name]) => name !== field);
    const asked = { stream: spec.name, field, typed, values: JSON.stringify(Object.fromEntries(others)) };
    return datasource.getResource("forms/suggest", asked, { showErrorAlert: false });
  };
  return (
    <InlineFieldRow>
      <Form
        key={spec.name}
        fields={fields}
        values={values}
        onChange={(own) => onChange(withOwnFields(query, own))}
        widgets={widgets}
        prefix={prefix}
        suggest={suggest}
        variables={getTemplateSrv().getVariables().map(({ name }) => name)}
        onDone={onDone}
      />
    </InlineFieldRow>
  );
}

/** A query that was just added follows the first stream that needs nothing, so that it shows rows. */
function useFirstStream(source: Source | undefined, { query, onChange, onRunQuery }: Props): void {
  React.useEffect(() => {
    const queries = source?.queries ?? [];
    const ready = queries.find(({ schema }) => !schema.required?.length);
    const first = ready ?? queries[0];
    if (first && query.queryType === undefined && Object.keys(ownFields(query)).length === 0) {
      onChange({ ...query, queryType: first.name });
      if (ready) {
        onRunQuery();
      }
    }
    // once, when the editor opens
  }, []);
}

/** What no form knows, as JSON: nothing saved is out of reach. */
function JsonQuery({ query, onChange, onRunQuery, problem }: Props & { problem: string }) {
  const shown = { ...Object.fromEntries(FORMS_OWN.filter((name) => name in query).map((name) => [name, query[name]])), ...ownFields(query) };
  return (
    <>
      <Alert severity="warning" title={problem} />
      <Form
        fields={[wholeField("query", "Query as JSON")]}
        values={{ query: shown }}
        onChange={({ query: written }) => onChange({ ...withOwnFields(query, {}, FORMS_OWN), ...(written as object) })}
        widgets={widgets}
        prefix={`query-${query.refId}`}
        onDone={onRunQuery}
      />
    </>
  );
}
