// The state of a text input with suggested values: loads them after a pause in typing, ignores
// outdated answers, and moves through the list with the arrow keys.
import * as React from "react";

/** Milliseconds without a key before values are loaded. */
const DEBOUNCE_MS = 250;

export interface Suggestions {
  isOpen: boolean;
  values: string[];
  /** Index of the highlighted value; -1 for none. */
  highlighted: number;
  /** The error of a failed load; "" for none. */
  error: string;
  open: (typed: string) => void;
  onType: (typed: string) => void;
  close: () => void;
  /** Handles a key. Returns the value that Enter selects, if any. */
  onKeyDown: (event: React.KeyboardEvent) => string | undefined;
}

export function useSuggestions(load: (typed: string) => Promise<string[]>): Suggestions {
  const [isOpen, setOpen] = React.useState(false);
  const [values, setValues] = React.useState<string[]>([]);
  const [highlighted, setHighlighted] = React.useState(-1);
  const [error, setError] = React.useState("");
  const latest = React.useRef(0);
  const timer = React.useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  React.useEffect(
    () => () => {
      latest.current = -1;
      clearTimeout(timer.current);
    },
    [],
  );

  const request = async (typed: string) => {
    const number = ++latest.current;
    const show = (loaded: string[], message: string) => {
      if (number === latest.current) {
        setValues(loaded);
        setError(message);
        setHighlighted(-1);
      }
    };
    try {
      show(await load(typed), "");
    } catch (failure) {
      show([], messageOf(failure));
    }
  };
  const close = () => {
    clearTimeout(timer.current);
    setOpen(false);
    setHighlighted(-1);
  };
  return {
    isOpen: isOpen && (values.length > 0 || error !== ""),
    values,
    highlighted,
    error,
    open: (typed) => {
      setOpen(true);
      void request(typed);
    },
    onType: (typed) => {
      setOpen(true);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => void request(typed), DEBOUNCE_MS);
    },
    close,
    onKeyDown: (event) => {
      const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
      if (step && isOpen && values.length) {
        event.preventDefault();
        setHighlighted((highlighted + step + values.length) % values.length);
      } else if (event.key === "Enter" && isOpen && values[highlighted] !== undefined) {
        event.preventDefault();
        return values[highlighted];
      } else if (event.key === "Escape" && isOpen) {
        event.stopPropagation();
        close();
      }
      return undefined;
    },
  };
}

/** The message of a failed resource call: the backend's, if any. */
function messageOf(error: unknown): string {
  const { data, message, statusText } = (error ?? {}) as {
    data?: { message?: string };
    message?: string;
    statusText?: string;
  };
  return data?.message || message || statusText || String(error);
}
