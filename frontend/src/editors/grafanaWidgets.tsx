// The widgets of both editors, made of components that every Grafana from 9.4 to 13 has.
import * as React from "react";
import {
  Button,
  Collapse,
  Input,
  Portal,
  SecretInput,
  SecretTextArea,
  Select,
  Switch,
  TextArea,
  useTheme2,
} from "@grafana/ui";

import { plainHelp } from "../forms/HelpText";
import { useSuggestions, type Suggestions } from "../forms/useSuggestions";
import type { Widgets } from "../forms/widgets";

type GrafanaWidgets = Omit<Widgets, "Row">;
type Props<Name extends keyof GrafanaWidgets> = React.ComponentProps<GrafanaWidgets[Name]>;

const TEXT_AREA_ROWS = 4;

/** Maximum height of the list of suggestions, in pixels. */
const MAX_HEIGHT = 240;

function Text({
  id,
  label,
  disabled,
  invalid,
  placeholder,
  onDone,
  value,
  onChange,
  multiline,
  numeric,
  width,
}: Props<"Text"> & { width: number }) {
  const common = { id, "aria-label": label, disabled, invalid, placeholder, value, onBlur: onDone };
  if (multiline) {
    return (
      <div style={{ width: width * 8 }}>
        <TextArea
          {...common}
          rows={TEXT_AREA_ROWS}
          onChange={(event) => onChange(event.currentTarget.value)}
        />
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

function Suggest({
  id,
  label,
  disabled,
  invalid,
  placeholder,
  onDone,
  value,
  onChange,
  load,
  width,
}: Props<"Suggest"> & { width: number }) {
  const suggestions = useSuggestions(load);
  const select = (text: string) => {
    onChange(text);
    suggestions.close();
    onDone?.();
  };
  const onKeyDown = (event: React.KeyboardEvent) => {
    const selected = suggestions.onKeyDown(event);
    if (selected !== undefined) {
      select(selected);
    } else if (event.key === "Enter") {
      suggestions.close();
      onDone?.();
    }
  };
  const container = React.useRef<HTMLDivElement>(null);
  return (
    <div ref={container} style={{ display: "inline-block" }}>
      <Input
        id={id}
        aria-label={label}
        role="combobox"
        aria-autocomplete="list"
        aria-expanded={suggestions.isOpen}
        aria-controls={`${id}-suggestions`}
        aria-activedescendant={
          suggestions.highlighted < 0 ? undefined : `${id}-suggestions-${suggestions.highlighted}`
        }
        autoComplete="off"
        width={width}
        disabled={disabled}
        invalid={invalid}
        placeholder={placeholder}
        value={value}
        onFocus={() => suggestions.open(value)}
        onChange={(event) => {
          onChange(event.currentTarget.value);
          suggestions.onType(event.currentTarget.value);
        }}
        onKeyDown={onKeyDown}
        onBlur={() => {
          suggestions.close();
          onDone?.();
        }}
      />
      {suggestions.isOpen ? (
        <SuggestionList
          id={`${id}-suggestions`}
          suggestions={suggestions}
          anchor={container.current}
          onSelect={select}
        />
      ) : null}
    </div>
  );
}

interface SuggestionListProps {
  id: string;
  suggestions: Suggestions;
  anchor: HTMLElement | null;
  onSelect: (text: string) => void;
}

/** The values below the input, or above it if there is not enough space; in front of the page. */
function SuggestionList({ id, suggestions, anchor, onSelect }: SuggestionListProps) {
  const theme = useTheme2();
  const { colors } = theme;
  const rect = anchor?.getBoundingClientRect() ?? new DOMRect();
  const isBelow = window.innerHeight - rect.bottom > MAX_HEIGHT || rect.top < MAX_HEIGHT;
  const close = suggestions.close;
  React.useEffect(() => {
    // a scroll event also arrives late, after the focus brought the input into view
    const onScroll = () => {
      const now = anchor?.getBoundingClientRect();
      if (now?.top !== rect.top || now.left !== rect.left) {
        close();
      }
    };
    window.addEventListener("scroll", onScroll, true);
    return () => window.removeEventListener("scroll", onScroll, true);
  });
  const style: React.CSSProperties = {
    position: "fixed",
    left: rect.left,
    ...(isBelow ? { top: rect.bottom + 2 } : { bottom: window.innerHeight - rect.top + 2 }),
    minWidth: rect.width,
    maxHeight: MAX_HEIGHT,
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
      <ul role="listbox" id={id} style={style}>
        {suggestions.error ? (
          <li style={{ padding: "4px 8px", color: colors.text.secondary }}>{suggestions.error}</li>
        ) : null}
        {suggestions.values.map((text, index) => (
          <li
            key={text}
            id={`${id}-${index}`}
            role="option"
            aria-selected={index === suggestions.highlighted}
            ref={index === suggestions.highlighted ? scrollIntoView : undefined}
            // before the input loses the focus
            onMouseDown={(event) => {
              event.preventDefault();
              onSelect(text);
            }}
            style={{
              padding: "4px 8px",
              cursor: "pointer",
              whiteSpace: "nowrap",
              background: index === suggestions.highlighted ? colors.action.hover : undefined,
            }}
          >
            {text}
          </li>
        ))}
      </ul>
    </Portal>
  );
}

function scrollIntoView(entry: HTMLElement | null): void {
  entry?.scrollIntoView?.({ block: "nearest" });
}

function ChoiceSelect({
  id,
  label,
  disabled,
  invalid,
  placeholder,
  value,
  choices,
  onChange,
  clearable,
  custom,
  width,
}: Props<"Select"> & { width: number }) {
  const options = choices.map((choice) => ({
    value: choice.key,
    label: choice.label,
    description: plainHelp(choice.help),
  }));
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

function Toggle({ id, label, disabled, value, onChange, onDone }: Props<"Switch">) {
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

function Secret({
  id,
  label,
  disabled,
  isSet,
  value,
  onChange,
  onReset,
  multiline,
  width,
}: Props<"Secret"> & { width: number }) {
  const common = { id, "aria-label": label, disabled, isConfigured: isSet, value, onReset };
  return multiline ? (
    <SecretTextArea
      {...common}
      rows={TEXT_AREA_ROWS}
      style={{ width: width * 8 }}
      onChange={(event) => onChange(event.currentTarget.value)}
    />
  ) : (
    <SecretInput
      {...common}
      width={width}
      autoComplete="new-password"
      onChange={(event) => onChange(event.currentTarget.value)}
    />
  );
}

function Section({ title, about, isInitiallyOpen, children }: Props<"Section">) {
  const theme = useTheme2();
  const [isOpen, setOpen] = React.useState(isInitiallyOpen);
  const label = (
    <>
      {title}
      {isOpen ? null : (
        <span style={{ marginLeft: 8, fontWeight: "normal", color: theme.colors.text.secondary }}>{about}</span>
      )}
    </>
  );
  return (
    // before 12.4 the header has an arrow only with the property `collapsible`
    <Collapse label={label} isOpen={isOpen} onToggle={setOpen} {...{ collapsible: true }}>
      {children}
    </Collapse>
  );
}

function Group({ children }: Props<"Group">) {
  const theme = useTheme2();
  return (
    <div style={{ borderLeft: `2px solid ${theme.colors.border.medium}`, paddingLeft: 16, marginTop: 8 }}>
      {children}
    </div>
  );
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
        <Button
          type="button"
          variant="secondary"
          fill="text"
          icon="trash-alt"
          onClick={onRemove}
          aria-label={removeLabel}
          tooltip={removeLabel}
        />
      ) : null}
    </div>
  );
}

/** The widgets. `width` is in units of 8 pixels. */
export function grafanaWidgets(width: number): GrafanaWidgets {
  return {
    Text: (props) => <Text {...props} width={width} />,
    Suggest: (props) => <Suggest {...props} width={width} />,
    Select: (props) => <ChoiceSelect {...props} width={width} />,
    Secret: (props) => <Secret {...props} width={width} />,
    Switch: Toggle,
    Section,
    Group,
    List,
    Entry,
  };
}
