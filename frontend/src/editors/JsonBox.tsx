import React from "react";
import { TextArea } from "@grafana/ui";

export interface JsonBoxProps {
  label: string;
  value: Record<string, unknown>;
  onChange: (value: Record<string, unknown>) => void;
  onBlur?: () => void;
}

/** A text box of JSON that hands on every object it can read, and says so when it cannot. */
export function JsonBox({ label, value, onChange, onBlur }: JsonBoxProps) {
  const [text, setText] = React.useState(() => JSON.stringify(value, null, 1));
  const [wrong, setWrong] = React.useState("");
  const change = (written: string) => {
    setText(written);
    try {
      const read: unknown = JSON.parse(written);
      if (read === null || typeof read !== "object" || Array.isArray(read)) {
        throw new Error("not an object");
      }
      setWrong("");
      onChange(read as Record<string, unknown>);
    } catch (error) {
      setWrong(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <div>
      <label className="gf-form-label" style={{ width: "auto" }}>
        {label}
      </label>
      <TextArea rows={4} value={text} onChange={(event) => change(event.currentTarget.value)} onBlur={onBlur} aria-label={label} />
      {wrong ? <div role="alert">Not JSON: {wrong}</div> : null}
    </div>
  );
}
