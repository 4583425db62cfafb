// What a host gives a form to draw with: Grafana's components in Grafana, plain HTML in the console.
import type { ComponentType, ReactNode } from "react";

export interface BoxProps {
  id: string;
  /** For screen readers: the label and where it stands. */
  label: string;
  disabled?: boolean;
  invalid?: boolean;
  placeholder?: string;
  /** The person has left the box, or has picked something. */
  onDone?: () => void;
}

export interface Choice {
  key: string;
  label: string;
  help?: string;
}

export interface Widgets {
  /** One field: its label, help and problem around whatever edits it. `wide`: it needs the line. */
  Row: ComponentType<{ id: string; label: string; help: string; required: boolean; problem: string; wide: boolean; children: ReactNode }>;
  Text: ComponentType<BoxProps & { value: string; onChange: (text: string) => void; multiline?: boolean; numeric?: boolean }>;
  /** A text that offers values as one types; any text stays allowed. */
  Suggest: ComponentType<BoxProps & { value: string; onChange: (text: string) => void; load: (typed: string) => Promise<string[]> }>;
  Switch: ComponentType<BoxProps & { value: boolean; onChange: (value: boolean) => void }>;
  /** `custom`: other texts than the choices may be typed. */
  Select: ComponentType<
    BoxProps & { value: string; choices: Choice[]; onChange: (key: string | undefined) => void; clearable?: boolean; custom?: boolean }
  >;
  /** A text that was saved can only be replaced, never read. */
  Secret: ComponentType<BoxProps & { isSet: boolean; value: string; onChange: (text: string) => void; onReset: () => void; multiline?: boolean }>;
  /** Fields that belong together, inside a field. */
  Group: ComponentType<{ children: ReactNode }>;
  /** Entries below each other, and the button that adds one. */
  List: ComponentType<{ children: ReactNode; addLabel: string; onAdd?: () => void }>;
  /** One entry, and the button that removes it. */
  Entry: ComponentType<{ children: ReactNode; removeLabel: string; onRemove?: () => void }>;
}

/** Where secrets are kept: apart from the other values, and never given back. */
export interface SecretStore {
  isSet: (name: string) => boolean;
  value: (name: string) => string;
  set: (name: string, text: string) => void;
  reset: (name: string) => void;
}
