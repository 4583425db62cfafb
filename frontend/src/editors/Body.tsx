import * as React from "react";

/** Grafana's Field and InlineField hand `disabled`, `invalid` and `loading` to what they hold; HTML has
 * no such attributes. */
export function Body({ children }: { children: React.ReactNode }) {
  return <div>{children}</div>;
}
