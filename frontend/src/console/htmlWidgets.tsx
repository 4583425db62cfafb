// The widgets of forms in plain HTML.

import * as React from "react";
import { useId, useRef, useState } from "react";
import { helpText, plainHelp } from "../forms/HelpText";
import type { Widgets } from "../forms/widgets";
import { Icon } from "./Icon";

export const htmlWidgets: Widgets = {
  Row: ({ id, label, help, required, error, wide, children }) => (
    <div className={`field ${wide ? "wide" : ""}`}>
      <label htmlFor={id}>
        {label}
        {required ? <i title="required"> *</i> : null}
      </label>
      {children}
      {help ? <small>{helpText(help)}</small> : null}
      {error ? (
        <small className="problem" role="alert">
          {error}
        </small>
      ) : null}
    </div>
  ),
  Text: ({ id, label, value, onChange, onDone, multiline, numeric, placeholder, disabled, invalid }) =>
    multiline ? (
      <textarea
        id={id}
        aria-label={label}
        rows={3}
        value={value}
        placeholder={placeholder}
        disabled={disabled}
        aria-invalid={invalid}
        onChange={(event) => onChange(event.currentTarget.value)}
        onBlur={onDone}
        spellCheck={false}
      />
    ) : (
      <input
        id={id}
        aria-label={label}
        value={value}
        placeholder={placeholder}
        disabled={disabled}
        aria-invalid={invalid}
        inputMode={numeric ? "decimal" : undefined}
        onChange={(event) => onChange(event.currentTarget.value)}
        onBlur={onDone}
        spellCheck={false}
        autoComplete="off"
      />
    ),
  Suggest: ({ id, label, value, onChange, onDone, load, placeholder, disabled, invalid }) => {
    const list = useId();
    const [values, setValues] = useState<string[]>([]);
    const latest = useRef(0);
    const search = (typed: string): void => {
      const number = ++latest.current;
      const show = (found: string[]): void => {
        if (number === latest.current) {
          setValues(found);
        }
      };
      void load(typed).then(show, () => show([]));
    };
    return (
      <>
        <input
          id={id}
          aria-label={label}
          list={list}
          value={value}
          placeholder={placeholder}
          disabled={disabled}
          aria-invalid={invalid}
          autoComplete="off"
          spellCheck={false}
          onFocus={() => search(value)}
          onChange={(event) => {
            onChange(event.currentTarget.value);
            search(event.currentTarget.value);
          }}
          onBlur={onDone}
        />
        <datalist id={list}>
          {values.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      </>
    );
  },
  Switch: ({ id, label, value, onChange, disabled }) => (
    <input
      type="checkbox"
      id={id}
      aria-label={label}
      checked={value}
      disabled={disabled}
      onChange={(event) => onChange(event.currentTarget.checked)}
    />
  ),
  Select: ({ id, label, value, choices, onChange, clearable, placeholder, disabled, invalid }) => (
    <select
      id={id}
      aria-label={label}
      value={value}
      disabled={disabled}
      aria-invalid={invalid}
      onChange={(event) => onChange(event.currentTarget.value || undefined)}
    >
      {clearable || value === "" ? <option value="">{placeholder}</option> : null}
      {choices.map((choice) => (
        <option key={choice.key} value={choice.key} title={plainHelp(choice.help)}>
          {choice.label}
        </option>
      ))}
    </select>
  ),
  Secret: ({ id, label, isSet, value, onChange, onReset, multiline, disabled }) =>
    isSet ? (
      <span className="row">
        <input id={id} aria-label={label} value="set" disabled />
        <button type="button" onClick={onReset} disabled={disabled}>
          Reset
        </button>
      </span>
    ) : multiline ? (
      // an input of one line removes line breaks, and a key in PEM has many
      <textarea
        id={id}
        aria-label={label}
        rows={3}
        value={value}
        disabled={disabled}
        autoComplete="off"
        onChange={(event) => onChange(event.currentTarget.value)}
        spellCheck={false}
      />
    ) : (
      <input
        id={id}
        aria-label={label}
        type="password"
        autoComplete="new-password"
        value={value}
        disabled={disabled}
        onChange={(event) => onChange(event.currentTarget.value)}
      />
    ),
  Section: ({ title, about, isInitiallyOpen, children }) => (
    <details className="section" open={isInitiallyOpen || undefined}>
      <summary>
        {title} <small>{about}</small>
      </summary>
      {children}
    </details>
  ),
  Group: ({ children }) => <fieldset>{children}</fieldset>,
  List: ({ children, addLabel, onAdd }) => (
    <div className="list">
      {children}
      {onAdd ? (
        <button type="button" aria-label={addLabel} onClick={onAdd}>
          Add
        </button>
      ) : null}
    </div>
  ),
  Entry: ({ children, removeLabel, onRemove }) => (
    <div className="row">
      <div className="entry">{children}</div>
      {onRemove ? (
        <button
          type="button"
          className="icon"
          aria-label={removeLabel}
          title={removeLabel}
          onClick={onRemove}
        >
          <Icon name="close" />
        </button>
      ) : null}
    </div>
  ),
};
