// The boxes that both of Grafana's editors have: what a value is edited with, made of components that
// every Grafana from 9.4 to 13 has.
import * as React from "react";
import { Button, Input, Portal, SecretInput, SecretTextArea, Select, Switch, TextArea, useTheme2 } from "@grafana/ui";

import { useSuggestions, type Suggestions } from "../forms/suggestions";
import type { Widgets } from "../forms/widgets";

type Boxes = Omit<Widgets, "Row">;
type Props<Name extends keyof Boxes> = React.ComponentProps<Boxes[Name]>;

const ROWS = 4;

/** Pixels of the list of suggested values; beyond them it scrolls. */
const HIGHEST = 240;

function Text({ id, label, disabled, invalid, placeholder, onDone, value, onChange, multiline, numeric, width }: Props<"Text"> & { width: number }) {
  const common = { id, "aria-label": label, disabled, invalid, placeholder, value, onBlur: onDone };
  if (multiline) {
    return (
      <div style={{ width: width * 8 }}>
        <TextArea {...common} rows={ROWS} onChange={(event) => onChange(event.currentTarget.value)} />
      </div>
    );
  }
  return (
    <Input
      {...common}
      width={width}
      inputMode={numeric ? "decimal" : undefined}
      onChange={(event) => onChange(event.currentTarget.value)}
      onKeyDown={(event) => (event.key === "Enter" ? onDone?.() : undefined)}
    />
  );
}

function Suggest({ id, label, disabled, invalid, placeholder, onDone, value, onChange, load, width }: Props<"Suggest"> & { width: number }) {
  const offered = useSuggestions(load);
  const pick = (text: string) => {
    onChange(text);
    offered.close();
    onDone?.();
  };
  const press = (event: React.KeyboardEvent) => {
    const picked = offered.press(event);
    if (picked !== undefined) {
      pick(picked);
    } else if (event.key === "Enter") {
      offered.close();
      onDone?.();
    }
  };
  const box = React.useRef<HTMLDivElement>(null);
  return (
    <div ref={box} style={{ display: "inline-block" }}>
      <Input
        id={id}
        aria-label={label}
        role="combobox"
        aria-autocomplete="list"
        aria-expanded={offered.isOpen}
        aria-controls={`${id}-offered`}
        aria-activedescendant={offered.reached < 0 ? undefined : `${id}-offered-${offered.reached}`}
        autoComplete="off"
        width={width}
        disabled={disabled}
        invalid={invalid}
        placeholder={placeholder}
        value={value}
        onFocus={() => offered.open(value)}
        onChange={(event) => {
          onChange(event.currentTarget.value);
          offered.type(event.currentTarget.value);
        }}
        onKeyDown={press}
        onBlur={() => {
          offered.close();
          onDone?.();
        }}
      />
      {offered.isOpen ? <Offered id={`${id}-offered`} offered={offered} beside={box.current} onPick={pick} /> : null}
    </div>
  );
}

interface OfferedProps {
  id: string;
  offered: Suggestions;
  beside: HTMLElement | null;
  onPick: (text: string) => void;
}

/** The values below the box, or above it where there is no room; on top of whatever scrolls or cuts. */
function Offered({ id, offered, beside, onPick }: OfferedProps) {
  const theme = useTheme2();
  const { colors } = theme;
  const at = beside?.getBoundingClientRect() ?? new DOMRect();
  const isBelow = window.innerHeight - at.bottom > HIGHEST || at.top < HIGHEST;
  const close = offered.close;
  React.useEffect(() => {
    const scrolled = (event: Event) => (event.target as Element).id === id || close();
    window.addEventListener("scroll", scrolled, true);
    return () => window.removeEventListener("scroll", scrolled, true);
  });
  const panel: React.CSSProperties = {
    position: "fixed",
    left: at.left,
    ...(isBelow ? { top: at.bottom + 2 } : { bottom: window.innerHeight - at.top + 2 }),
    minWidth: at.width,
    maxHeight: HIGHEST,
    overflowY: "auto",
    zIndex: theme.zIndex.portal,
    padding: 4,
    listStyle: "none",
    color: colors.text.primary,
    background: colors.background.primary,
    border: `1px solid ${colors.border.medium}`,
    borderRadius: 2,
    boxShadow: theme.shadows.z3,
  };
  return (
    <Portal>
      <ul role="listbox" id={id} style={panel}>
        {offered.problem ? <li style={{ padding: "4px 8px", color: colors.text.secondary }}>{offered.problem}</li> : null}
        {offered.found.map((text, index) => (
          <li
            key={text}
            id={`${id}-${index}`}
            role="option"
            aria-selected={index === offered.reached}
            ref={index === offered.reached ? show : undefined}
            // before the box loses the focus
            onMouseDown={(event) => {
              event.preventDefault();
              onPick(text);
            }}
            style={{
              padding: "4px 8px",
              cursor: "pointer",
              whiteSpace: "nowrap",
              background: index === offered.reached ? colors.action.hover : undefined,
            }}
          >
            {text}
          </li>
        ))}
      </ul>
    </Portal>
  );
}

function show(entry: HTMLElement | null): void {
  entry?.scrollIntoView?.({ block: "nearest" });
}

function Choose({ id, label, disabled, invalid, placeholder, value, choices, onChange, clearable, custom, width }: Props<"Select"> & { width: number }) {
  const options = choices.map((choice) => ({ value: choice.key, label: choice.label, description: choice.help || undefined }));
  return (
    <Select
      inputId={id}
      aria-label={label}
      disabled={disabled}
      invalid={invalid}
      placeholder={placeholder}
      width={width}
      options={options}
      value={options.find((option) => option.value === value) ?? null}
      onChange={(option) => onChange(option?.value)}
      isClearable={clearable}
      allowCustomValue={custom}
      menuShouldPortal
    />
  );
}

function Turn({ id, label, disabled, value, onChange, onDone }: Props<"Switch">) {
  return (
    <div style={{ display: "flex", alignItems: "center", height: 32 }}>
      <Switch
        id={id}
        aria-label={label}
        disabled={disabled}
        value={value}
        onChange={(event) => {
          onChange(event.currentTarget.checked);
          onDone?.();
        }}
      />
    </div>
  );
}

function Secret({ id, label, disabled, isSet, value, onChange, onReset, multiline, width }: Props<"Secret"> & { width: number }) {
  const common = { id, "aria-label": label, disabled, isConfigured: isSet, value, onReset };
  return multiline ? (
    <SecretTextArea {...common} rows={ROWS} cols={width} onChange={(event) => onChange(event.currentTarget.value)} />
  ) : (
    <SecretInput {...common} width={width} autoComplete="new-password" onChange={(event) => onChange(event.currentTarget.value)} />
  );
}

function Group({ children }: Props<"Group">) {
  const theme = useTheme2();
  return <div style={{ borderLeft: `2px solid ${theme.colors.border.medium}`, paddingLeft: 16, marginTop: 8 }}>{children}</div>;
}

function List({ children, addLabel, onAdd }: Props<"List">) {
  return (
    <div>
      {children}
      {onAdd ? (
        <Button type="button" variant="secondary" size="sm" icon="plus" onClick={onAdd} aria-label={addLabel}>
          Add
        </Button>
      ) : null}
    </div>
  );
}

function Entry({ children, removeLabel, onRemove }: Props<"Entry">) {
  return (
    <div style={{ display: "flex", gap: 8, alignItems: "flex-start", marginBottom: 8 }}>
      {children}
      {onRemove ? (
        <Button type="button" variant="secondary" fill="text" icon="trash-alt" onClick={onRemove} aria-label={removeLabel} tooltip={removeLabel} />
      ) : null}
    </div>
  );
}

/** The boxes, `width` wide (in eights of a pixel). */
export function boxes(width: number): Boxes {
  return {
    Text: (props) => <Text {...props} width={width} />,
    Suggest: (props) => <Suggest {...props} width={width} />,
    Select: (props) => <Choose {...props} width={width} />,
    Secret: (props) => <Secret {...props} width={width} />,
    Switch: Turn,
    Group,
    List,
    Entry,
  };
}
