// The form of a data source's settings, made from the author's Settings class.
import * as React from "react";
import type { DataSourcePluginOptionsEditorProps } from "@grafana/data";
import { Alert, Field } from "@grafana/ui";

import { fieldsOf, jsonObjectField } from "../forms/fields";
import { Form } from "../forms/Form";
import { findSource, type PluginSchema } from "../forms/pluginSchema";
import { helpText } from "../forms/HelpText";
import type { SecretStore, Widgets } from "../forms/widgets";
import type { StreamSettings } from "../types";
import { FieldBody } from "./FieldBody";
import { grafanaWidgets } from "./grafanaWidgets";
import { usePluginSchema } from "./usePluginSchema";

type Props = DataSourcePluginOptionsEditorProps<StreamSettings, Record<string, string>>;

const WIDTH = 48;

const widgets: Widgets = {
  ...grafanaWidgets(WIDTH),
  Row: ({ id, label, help, required, error, children }) => (
    <Field
      label={label}
      description={helpText(help)}
      required={required}
      invalid={error !== ""}
      error={error}
      htmlFor={id}
    >
      <FieldBody>{children}</FieldBody>
    </Field>
  ),
};

export function ConfigEditor(props: Props) {
  const { schema, error } = usePluginSchema(props.options.type);
  if (schema) {
    return <SettingsForm {...props} schema={schema} />;
  }
  return error ? <JsonSettings {...props} error={error} /> : null;
}

function SettingsForm({ options, onOptionsChange, schema }: Props & { schema: PluginSchema }) {
  const settings: Record<string, unknown> = options.jsonData ?? {};
  const source = findSource(schema, settings);
  const change = (jsonData: Record<string, unknown>) => onOptionsChange({ ...options, jsonData });
  const fields = React.useMemo(() => fieldsOf(source?.settings ?? {}), [source]);
  return (
    <div>
      {schema.sourceSetting !== null ? (
        <SourceField schema={schema} setting={schema.sourceSetting} options={options} onChange={change} />
      ) : null}
      {source?.error ? (
        <Alert severity="error" title={`${source.name} cannot be used: ${source.error}`} />
      ) : null}
      {fields.length === 0 && !source?.error ? <p>{noSettings(schema)}</p> : null}
      <Form
        // fields of another class may have the same names
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

function noSettings({ sourceSetting }: PluginSchema): string {
  return sourceSetting === null ? "This data source has no settings." : "This source has no other settings.";
}

interface SourceFieldProps {
  schema: PluginSchema;
  setting: string;
  options: Props["options"];
  onChange: (settings: Record<string, unknown>) => void;
}

/** Selects the class of the data source, where the plugin has several. */
function SourceField({ schema, setting, options, onChange }: SourceFieldProps) {
  const settings: Record<string, unknown> = options.jsonData ?? {};
  const source = findSource(schema, settings);
  const selected = source?.name ?? String(settings[setting]);
  const choices = schema.sources.map(({ name, help, error }) => ({
    key: name,
    label: name,
    help: error ?? help,
  }));
  if (!source) {
    choices.push({ key: selected, label: selected, help: "not in this plugin" });
  }
  const error = source
    ? ""
    : `expected one of ${schema.sources.map(({ name }) => name).join(", ")}, got ${selected}`;
  return (
    <widgets.Row
      id="settings-source"
      label="Source"
      help={source?.help ?? ""}
      required
      error={error}
      wide={false}
    >
      <widgets.Select
        id="settings-source"
        label="Source"
        disabled={options.readOnly}
        invalid={!source}
        value={selected}
        choices={choices}
        onChange={(name) => name !== undefined && onChange({ ...settings, [setting]: name })}
      />
    </widgets.Row>
  );
}

/** Secrets are written to secureJsonData. secureJsonFields has the names of the saved ones. */
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

/** Without a schema, the settings are edited as JSON. */
function JsonSettings({ options, onOptionsChange, error }: Props & { error: string }) {
  return (
    <>
      <Alert severity="warning" title={`No settings form: ${error}`} />
      <Form
        fields={[jsonObjectField("jsonData", "Settings (jsonData)")]}
        values={{ jsonData: options.jsonData ?? {} }}
        onChange={({ jsonData }) => onOptionsChange({ ...options, jsonData: jsonData as StreamSettings })}
        widgets={widgets}
        prefix="settings"
        disabled={options.readOnly}
      />
    </>
  );
}
