// A menu button, and the panel that it opens.

import * as React from "react";
import { useEffect, useRef, useState } from "react";
import { Icon } from "./Icon";

export function Menu({ label, children }: { label: string; children: React.ReactNode }): React.ReactElement {
  const [open, setOpen] = useState(false);
  const element = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) {
      return;
    }
    const close = (event: Event): void => {
      if (
        event instanceof KeyboardEvent
          ? event.key === "Escape"
          : !element.current?.contains(event.target as Node)
      ) {
        setOpen(false);
      }
    };
    document.addEventListener("pointerdown", close);
    document.addEventListener("keydown", close);
    return () => {
      document.removeEventListener("pointerdown", close);
      document.removeEventListener("keydown", close);
    };
  }, [open]);
  return (
    <div className="menu" ref={element}>
      <button
        className="icon"
        aria-label={label}
        title={label}
        aria-expanded={open}
        onClick={() => setOpen(!open)}
      >
        <Icon name="more" />
      </button>
      {open ? (
        <div
          className="sheet"
          onClick={(event) =>
            (event.target as HTMLElement).parentElement?.classList.contains("sheet") &&
            (event.target as HTMLElement).tagName === "BUTTON" &&
            setOpen(false)
          }
        >
          {children}
        </div>
      ) : null}
    </div>
  );
}
