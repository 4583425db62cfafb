// A stub of @grafana/ui, with HTML elements; see grafana-data.ts.
import React from "react";

import type { SelectableValue } from "./grafana-data";

type Attributes<T> = Omit<React.AllHTMLAttributes<T>, "onChange" | "label" | "value" | "width" | "size"> & {
  onChange?: React.ChangeEventHandler<T>;
  value?: string;
};

export function Input({
  width: _,
  invalid,
  ...rest
}: Attributes<HTMLInputElement> & { width?: number; invalid?: boolean }) {
  return <input aria-invalid={invalid} {...rest} />;
}

export function TextArea({ invalid, ...rest }: Attributes<HTMLTextAreaElement> & { invalid?: boolean }) {
  return <textarea aria-invalid={invalid} {...rest} />;
}

type SecretProps = { isConfigured: boolean; onReset: () => void };

export function SecretInput({
  isConfigured,
  onReset,
  value,
  ...rest
}: Attributes<HTMLInputElement> & SecretProps & { width?: number }) {
  return isConfigured ? (
    <>
      <input disabled value="configured" aria-label={rest["aria-label"]} readOnly />
      <button type="button" onClick={onReset}>
        Reset
      </button>
    </>
  ) : (
    <Input type="password" value={value} {...rest} />
  );
}

export function SecretTextArea({
  isConfigured,
  onReset,
  value,
  ...rest
}: Attributes<HTMLTextAreaElement> & SecretProps) {
  return isConfigured ? (
    <>
      <textarea disabled value="configured" aria-label={rest["aria-label"]} readOnly />
      <button type="button" onClick={onReset}>
        Reset
      </button>
    </>
  ) : (
    <TextArea value={value} {...rest} />
  );
}

interface SelectProps<T> {
  inputId?: string;
  "aria-label"?: string;
  disabled?: boolean;
  invalid?: boolean;
  placeholder?: string;
  width?: number;
  options: Array<SelectableValue<T>>;
  value: SelectableValue<T> | null;
  onChange: (option: SelectableValue<T>) => void;
  isClearable?: boolean;
  allowCustomValue?: boolean;
  menuShouldPortal?: boolean;
}

/** Like the real component, passes null when it is cleared. */
export function Select<T extends string>(props: SelectProps<T>) {
  const { inputId, disabled, invalid, options, value, onChange, isClearable, placeholder } = props;
  const pick = (key: string) =>
    onChange(options.find((option) => option.value === key) ?? (null as unknown as SelectableValue<T>));
  return (
    <select
      id={inputId}
      aria-label={props["aria-label"]}
      aria-invalid={invalid}
      disabled={disabled}
      value={value?.value ?? ""}
      onChange={(event) => pick(event.currentTarget.value)}
    >
      {value === null || isClearable ? <option value="">{placeholder}</option> : null}
      {options.map((option) => (
        <option key={option.value} value={option.value} title={option.description}>
          {option.label}
        </option>
      ))}
    </select>
  );
}

type SwitchProps = Omit<Attributes<HTMLInputElement>, "value"> & { value?: boolean };

export function Switch({ value, ...rest }: SwitchProps) {
  return <input type="checkbox" role="switch" checked={value ?? false} {...rest} />;
}

export const InlineSwitch = Switch;

interface FieldProps {
  label?: React.ReactNode;
  description?: React.ReactNode;
  tooltip?: string | React.ReactElement;
  labelWidth?: number | "auto";
  required?: boolean;
  invalid?: boolean;
  error?: React.ReactNode;
  htmlFor?: string;
  children: React.ReactElement;
}

export function Field({ label, description, tooltip, invalid, error, htmlFor, children }: FieldProps) {
  return (
    <div>
      <span role="tooltip">{tooltip}</span>
      <label htmlFor={htmlFor}>{label}</label>
      <p>{description}</p>
      {children}
      {invalid ? <div role="alert">{error}</div> : null}
    </div>
  );
}

export const InlineField = Field;

export function InlineFieldRow({ children }: { children: React.ReactNode }) {
  return <div>{children}</div>;
}

interface ButtonProps extends Attributes<HTMLButtonElement> {
  type?: "button";
  variant?: "primary" | "secondary";
  size?: "sm" | "md";
  fill?: "solid" | "outline" | "text";
  icon?: "plus" | "trash-alt";
  tooltip?: string;
}

export function Button({
  variant: _v,
  size: _s,
  fill: _f,
  icon: _i,
  tooltip: _t,
  children,
  ...rest
}: ButtonProps) {
  return <button {...(rest as React.ButtonHTMLAttributes<HTMLButtonElement>)}>{children}</button>;
}

interface CollapseProps {
  label: React.ReactNode;
  isOpen?: boolean;
  onToggle?: (isOpen: boolean) => void;
  children: React.ReactNode;
}

export function Collapse({ label, isOpen, onToggle, children }: CollapseProps) {
  return (
    <section>
      <button type="button" aria-expanded={isOpen} onClick={() => onToggle?.(!isOpen)}>
        {label}
      </button>
      {isOpen ? children : null}
    </section>
  );
}

interface RadioProps<T> {
  options: Array<SelectableValue<T>>;
  value?: T;
  disabled?: boolean;
  onChange?: (value: T) => void;
}

export function RadioButtonGroup<T>({ options, value, disabled, onChange }: RadioProps<T>) {
  const name = React.useRef(`radio-${Math.random()}`).current;
  return (
    <div role="radiogroup">
      {options.map((option) => (
        <label key={option.label} title={option.description}>
          <input
            type="radio"
            name={name}
            disabled={disabled}
            checked={option.value === value}
            onChange={() => onChange?.(option.value as T)}
          />
          {option.label}
        </label>
      ))}
    </div>
  );
}

export function Alert({
  title,
  children,
}: {
  title: string;
  severity?: "error" | "warning" | "info" | "success";
  children?: React.ReactNode;
}) {
  return (
    <div role="alert">
      {title}
      {children}
    </div>
  );
}

export function Portal({ children }: { children: React.ReactNode }) {
  return <>{children}</>;
}

const COLORS = {
  background: { primary: "#fff" },
  border: { weak: "#eee", medium: "#ddd" },
  text: { primary: "#000", secondary: "#555" },
  action: { hover: "#eee" },
};

export function useTheme2() {
  return { colors: COLORS, shadows: { z3: "none" }, zIndex: { portal: 1061 } };
}
