// Values offered while one types, without a word on how they look: asked for once the typing rests,
// late answers thrown away, the list walked by keys.
import * as React from "react";

/** Milliseconds without a key before values are asked for. */
const REST = 250;

export interface Suggestions {
  isOpen: boolean;
  found: string[];
  /** Which one the keys have reached; -1 for none. */
  reached: number;
  /** Said instead of values that could not be had. */
  problem: string;
  open: (typed: string) => void;
  type: (typed: string) => void;
  close: () => void;
  /** Returns the value that Enter picks, if any. */
  press: (event: React.KeyboardEvent) => string | undefined;
}

export function useSuggestions(load: (typed: string) => Promise<string[]>): Suggestions {
  const [isOpen, setOpen] = React.useState(false);
  const [found, setFound] = React.useState<string[]>([]);
  const [reached, setReached] = React.useState(-1);
  const [problem, setProblem] = React.useState("");
  const latest = React.useRef(0);
  const timer = React.useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  React.useEffect(
    () => () => {
      latest.current = -1;
      clearTimeout(timer.current);
    },
    []
  );

  const ask = async (typed: string) => {
    const number = ++latest.current;
    const tell = (values: string[], text: string) => {
      if (number === latest.current) {
        setFound(values);
        setProblem(text);
        setReached(-1);
      }
    };
    try {
      tell(await load(typed), "");
    } catch (error) {
      tell([], messageOf(error));
    }
  };
  const close = () => {
    clearTimeout(timer.current);
    setOpen(false);
    setReached(-1);
  };
  return {
    isOpen: isOpen && (found.length > 0 || problem !== ""),
    found,
    reached,
    problem,
    open: (typed) => {
      setOpen(true);
      void ask(typed);
    },
    type: (typed) => {
      setOpen(true);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => void ask(typed), REST);
    },
    close,
    press: (event) => {
      const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
      if (step && isOpen && found.length) {
        event.preventDefault();
        setReached((reached + step + found.length) % found.length);
      } else if (event.key === "Enter" && isOpen && found[reached] !== undefined) {
        event.preventDefault();
        return found[reached];
      } else if (event.key === "Escape" && isOpen) {
        event.stopPropagation();
        close();
      }
      return undefined;
    },
  };
}

/** What an error of a resource call says: Grafana's holds the backend's answer. */
export function messageOf(error: unknown): string {
  const found = error as { data?: { message?: string }; message?: string; statusText?: string } | undefined;
  return found?.data?.message || found?.message || found?.statusText || String(error);
}
