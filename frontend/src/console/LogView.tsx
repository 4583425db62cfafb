// The newest log lines of the plugin.

import * as React from "react";
import { useEffect, useRef, useState } from "react";
import type { LogLine } from "./protocol";
import { useSignal } from "./signal";
import type { Store } from "./store";

const LEVELS = ["info", "warn", "error"];

export function LogView({ store }: { store: Store }): React.ReactElement {
  useSignal(store.logChanged);
  const [level, setLevel] = useState("info");
  const list = useRef<HTMLOListElement>(null);
  const atEnd = useRef(true);
  const lines = store.lines.filter((line) => LEVELS.indexOf(line["@level"]) >= LEVELS.indexOf(level));
  useEffect(() => {
    store.unseenErrors = 0;
    if (atEnd.current && list.current) {
      list.current.scrollTop = list.current.scrollHeight;
    }
  });
  return (
    <div className="log">
      <div className="bar">
        <div className="seg">
          {LEVELS.map((each) => (
            <button key={each} aria-selected={level === each} onClick={() => setLevel(each)}>
              {each === "info" ? "all" : each === "warn" ? "warnings" : "errors"}
            </button>
          ))}
        </div>
        <span className="dim">{lines.length} lines</span>
      </div>
      <ol
        className="scroll"
        ref={list}
        onScroll={(event) => {
          const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
          atEnd.current = scrollHeight - scrollTop - clientHeight < 40;
        }}
      >
        {lines.map((line, n) => (
          <Line key={n} line={line} />
        ))}
      </ol>
    </div>
  );
}

const SHOWN_KEYS = ["path", "error", "stack"];

function Line({ line }: { line: LogLine }): React.ReactElement {
  const extra = Object.entries(line).filter(([key]) => !key.startsWith("@") && !SHOWN_KEYS.includes(key));
  const traceback = [line.error, line.stack].filter(Boolean).join("\n");
  const message = line["@message"];
  const [first, ...rest] = message.split("\n");
  const detail = [rest.join("\n"), traceback].filter(Boolean).join("\n");
  return (
    <li className={line["@level"]}>
      <time>{new Date(line["@timestamp"]).toLocaleTimeString("en-GB")}</time>
      <span className="level">{line["@level"]}</span>
      <div>
        {first} {line.path ? <span className="tag">{line.path}</span> : null}
        {extra.map(([key, value]) => (
          <span key={key} className="dim">
            {" "}
            {key}={String(value)}
          </span>
        ))}
        {detail ? (
          <details open={line["@level"] === "error"}>
            <summary>traceback</summary>
            <pre>{detail}</pre>
          </details>
        ) : null}
      </div>
    </li>
  );
}
