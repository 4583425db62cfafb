// The components that a form is made of. Grafana's editors and the console each have their own.
import type { ComponentType, ReactNode } from "react";

export interface InputProps {
  id: string;
  /** For screen readers: the label, with the index in a list. */
  label: string;
  disabled?: boolean;
  invalid?: boolean;
  placeholder?: string;
  /** The viewer has left the input or chosen an option. */
  onDone?: () => void;
}

export interface Choice {
  key: string;
  label: string;
  help?: string;
}

export interface Widgets {
  /** One field: label, help and error around its input. `wide`: it takes a whole line. */
  Row: ComponentType<{
    id: string;
    label: string;
    help: string;
    required: boolean;
    error: string;
    wide: boolean;
    children: ReactNode;
  }>;
  Text: ComponentType<
    InputProps & { value: string; onChange: (text: string) => void; multiline?: boolean; numeric?: boolean }
  >;
  /** A text input that suggests values; it accepts any text. */
  Suggest: ComponentType<
    InputProps & {
      value: string;
      onChange: (text: string) => void;
      load: (typed: string) => Promise<string[]>;
    }
  >;
  Switch: ComponentType<InputProps & { value: boolean; onChange: (value: boolean) => void }>;
  /** `custom`: accepts text that is not among the choices. */
  Select: ComponentType<
    InputProps & {
      value: string;
      choices: Choice[];
      onChange: (key: string | undefined) => void;
      clearable?: boolean;
      custom?: boolean;
    }
  >;
  /** A saved secret can be replaced but not read. */
  Secret: ComponentType<
    InputProps & {
      isSet: boolean;
      value: string;
      onChange: (text: string) => void;
      onReset: () => void;
      multiline?: boolean;
    }
  >;
  /** Fields that are rarely used, below a title that opens them. `about`: which fields they are. */
  Section: ComponentType<{ title: string; about: string; isInitiallyOpen: boolean; children: ReactNode }>;
  /** The fields of a nested object. */
  Group: ComponentType<{ children: ReactNode }>;
  /** Entries, and the button that adds one. */
  List: ComponentType<{ children: ReactNode; addLabel: string; onAdd?: () => void }>;
  /** One entry, and the button that removes it. */
  Entry: ComponentType<{ children: ReactNode; removeLabel: string; onRemove?: () => void }>;
}

/** Secrets are stored apart from the other values. Saved ones cannot be read. */
export interface SecretStore {
  isSet: (name: string) => boolean;
  value: (name: string) => string;
  set: (name: string, text: string) => void;
  reset: (name: string) => void;
}
