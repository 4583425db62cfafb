// The components of @grafana/ui that the module uses, as plain HTML; see grafana-data.ts.
import React from "react";

export function TextArea(props: React.TextareaHTMLAttributes<HTMLTextAreaElement> & { invalid?: boolean }) {
  const { invalid, ...rest } = props;
  return <textarea aria-invalid={invalid} {...rest} />;
}
