// Help texts, in which backticks are around code.
import * as React from "react";

/** Without Grafana's box, which is higher than a line. */
const PLAIN = { margin: 0, padding: 0, border: 0, background: "none", color: "inherit", fontSize: "inherit" };

/** The text with its code as `code` elements; undefined if it is empty. */
export function helpText(text: string): React.ReactElement | undefined {
  const parts = text.split(/`+([^`]+)`+/);
  return text ? <>{parts.map((part, index) => (index % 2 ? code(part, index) : part))}</> : undefined;
}

function code(text: string, key: number): React.ReactElement {
  return (
    <code key={key} style={PLAIN}>
      {text}
    </code>
  );
}

/** The text without backticks, where only plain text can be shown. */
export function plainHelp(text: string | undefined): string | undefined {
  return text?.replace(/`+([^`]+)`+/g, "$1") || undefined;
}
