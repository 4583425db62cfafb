// The content of a Grafana field.
import * as React from "react";

/** Grafana's Field and InlineField pass `disabled`, `invalid` and `loading` to their child, which are
 * not attributes of HTML elements. */
export function FieldBody({ children }: { children: React.ReactNode }) {
  return <div>{children}</div>;
}
