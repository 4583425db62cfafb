// esbuild compiles JSX to calls of these: short names, and Grafana 9.4 has no react/jsx-runtime.
import * as React from "react";

export const h = React.createElement;
export const Fragment = React.Fragment;
