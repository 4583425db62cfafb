// What an admin fills in, drawn from the author's Settings class.
import * as React from "react";
import type { DataSourcePluginOptionsEditorProps } from "@grafana/data";
import { Alert, Field } from "@grafana/ui";

import { sourceOf, type PluginDocument } from "../forms/document";
import { fieldsOf, wholeField } from "../forms/fields";
import { Form } from "../forms/Form";
import type { SecretStore, Widgets } from "../forms/widgets";
import type { StreamSettings } from "../types";
import { Body } from "./Body";
import { boxes } from "./boxes";
import { usePluginDocument } from "./pluginDocument";

type Props = DataSourcePluginOptionsEditorProps<StreamSettings, Record<string, string>>;

const WIDTH = 48;

const widgets: Widgets = {
  ...boxes(WIDTH),
  Row: ({ id, label, help, required, problem, children }) => (
    <Field label={label} description={help} required={required} invalid={problem !== ""} error={problem} htmlFor={id}>
      <Body>{children}</Body>
    </Field>
  ),
};

export function ConfigEditor(props: Props) {
  const { document, problem } = usePluginDocument(props.options.type);
  if (document) {
    return <SettingsForm {...props} document={document} />;
  }
  return problem ? <JsonSettings {...props} problem={problem} /> : null;
}

function SettingsForm({ options, onOptionsChange, document }: Props & { document: PluginDocument }) {
  const settings: Record<string, unknown> = options.jsonData ?? {};
  const source = sourceOf(document, settings);
  const change = (jsonData: Record<string, unknown>) => onOptionsChange({ ...options, jsonData });
  const fields = React.useMemo(() => fieldsOf(source?.settings ?? {}), [source]);
  return (
    <div>
      {document.by !== null ? <SourceField document={document} by={document.by} options={options} onChange={change} /> : null}
      {source?.error ? <Alert severity="error" title={`${source.name} cannot be used: ${source.error}`} /> : null}
      {fields.length === 0 && !source?.error ? <p>There is nothing to set.</p> : null}
      <Form
        // another source has other fields of the same names
        key={source?.name}
        fields={fields}
        values={settings}
        onChange={change}
        widgets={widgets}
        prefix="settings"
        disabled={options.readOnly}
        secrets={secretsOf(options, onOptionsChange)}
      />
    </div>
  );
}

interface SourceFieldProps {
  document: PluginDocument;
  by: string;
  options: Props["options"];
  onChange: (settings: Record<string, unknown>) => void;
}

/** Which of the plugin's classes serves this data source. */
function SourceField({ document, by, options, onChange }: SourceFieldProps) {
  const settings: Record<string, unknown> = options.jsonData ?? {};
  const source = sourceOf(document, settings);
  const chosen = source?.name ?? String(settings[by]);
  const choices = document.sources.map(({ name, help, error }) => ({ key: name, label: name, help: error ?? help }));
  if (!source) {
    choices.push({ key: chosen, label: chosen, help: "not in this plugin" });
  }
  const problem = source ? "" : `${chosen} is none of ${document.sources.map(({ name }) => name).join(", ")}`;
  return (
    <widgets.Row id="settings-by" label="Source" help={source?.help ?? ""} required problem={problem} wide={false}>
      <widgets.Select
        id="settings-by"
        label="Source"
        disabled={options.readOnly}
        invalid={!source}
        value={chosen}
        choices={choices}
        onChange={(name) => name !== undefined && onChange({ ...settings, [by]: name })}
      />
    </widgets.Row>
  );
}

/** Secrets go into secureJsonData; Grafana says in secureJsonFields which ones it has. */
function secretsOf(options: Props["options"], onOptionsChange: Props["onOptionsChange"]): SecretStore {
  const write = (name: string, text: string) => {
    onOptionsChange({
      ...options,
      secureJsonFields: { ...options.secureJsonFields, [name]: false },
      secureJsonData: { ...options.secureJsonData, [name]: text },
    });
  };
  return {
    isSet: (name) => options.secureJsonFields?.[name] ?? false,
    value: (name) => options.secureJsonData?.[name] ?? "",
    set: write,
    reset: (name) => write(name, ""),
  };
}

/** Without a schema settings are edited as JSON: nothing becomes out of reach. */
function JsonSettings({ options, onOptionsChange, problem }: Props & { problem: string }) {
  return (
    <>
      <Alert severity="warning" title={`There are no forms: ${problem}`} />
      <Form
        fields={[wholeField("jsonData", "Settings (jsonData)")]}
        values={{ jsonData: options.jsonData ?? {} }}
        onChange={({ jsonData }) => onOptionsChange({ ...options, jsonData: jsonData as StreamSettings })}
        widgets={widgets}
        prefix="settings"
        disabled={options.readOnly}
      />
    </>
  );
}
