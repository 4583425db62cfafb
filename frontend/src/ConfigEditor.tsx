import React from "react";
import type { DataSourcePluginOptionsEditorProps } from "@grafana/data";

import { JsonBox } from "./JsonBox";
import type { StreamSettings } from "./types";

/** What an admin fills in. */
export function ConfigEditor({ options, onOptionsChange }: DataSourcePluginOptionsEditorProps<StreamSettings>) {
  return (
    <JsonBox
      label='Settings (jsonData), for example {"source": "host"}'
      value={options.jsonData ?? {}}
      onChange={(jsonData) => onOptionsChange({ ...options, jsonData })}
    />
  );
}
