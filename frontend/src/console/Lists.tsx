// The channels of the plugin and its log: long lists, of which only what is seen is drawn.

import * as React from "react";
import { useEffect, useRef, useState } from "react";
import { LogLine } from "./link";
import { Channel, Store, useSignal } from "./store";
import { show, whole } from "./units";

const LINE_PX = 30;

export function Channels({ store }: { store: Store }): React.ReactElement {
  useSignal(store.pulse);
  const [find, setFind] = useState("");
  const [top, setTop] = useState(0);
  const [open, setOpen] = useState("");
  const box = useRef<HTMLDivElement>(null);
  const found = store.channels.filter((channel) => channel.path.includes(find));
  const height = box.current?.clientHeight ?? 600;
  const from = Math.max(0, Math.floor(top / LINE_PX) - 5);
  const to = Math.min(found.length, from + Math.ceil(height / LINE_PX) + 10);
  const chosen = store.byPath.get(open);
  return (
    <div className="channels">
      <div className="bar">
        <input type="search" placeholder="Find a path" aria-label="Find a path" value={find} onChange={(event) => setFind(event.currentTarget.value)} />
        <span className="dim">{found.length.toLocaleString("en")} of {store.channels.length.toLocaleString("en")} channels</span>
      </div>
      <div className="grid head">
        <span>path</span><span>state</span><span>readers</span><span>rows/s</span><span>rows</span><span>bytes/s</span><span>dropped</span><span>runs</span><span>errors</span><span>cursor</span>
      </div>
      <div className="scroll lines" ref={box} onScroll={(event) => setTop(event.currentTarget.scrollTop)}>
        <div style={{ height: found.length * LINE_PX, position: "relative" }}>
          {found.slice(from, to).map((channel, n) => (
            <ChannelRow key={channel.path} channel={channel} top={(from + n) * LINE_PX} onOpen={() => setOpen(open === channel.path ? "" : channel.path)} />
          ))}
        </div>
      </div>
      {chosen ? (
        <aside className="detail">
          <h3>{chosen.path}</h3>
          <p>
            <button onClick={() => store.add(chosen.path, null)}>Follow</button>
          </p>
          {chosen.error ? <pre>{chosen.error}</pre> : <p className="dim">no error</p>}
        </aside>
      ) : null}
    </div>
  );
}

function ChannelRow({ channel, top, onOpen }: { channel: Channel; top: number; onOpen: () => void }): React.ReactElement {
  return (
    <button className="grid line" style={{ top, height: LINE_PX }} onClick={onOpen}>
      <span className="mono">{channel.path}</span>
      <span><i className={`state ${channel.state}`}>{channel.state}</i></span>
      <span>{channel.readers}</span>
      <span>{whole(channel.rowsPerSecond)}</span>
      <span>{channel.rows.toLocaleString("en")}</span>
      <span>{show(channel.bytesPerSecond, "binBps")}</span>
      <span className={channel.dropped ? "warn" : ""}>{channel.dropped.toLocaleString("en")}</span>
      <span>{channel.starts}</span>
      <span className={channel.errors ? "bad" : ""}>{channel.errors}</span>
      <span className="mono">{channel.cursor}</span>
    </button>
  );
}

const LEVELS = ["info", "warn", "error"];

export function Log({ store }: { store: Store }): React.ReactElement {
  useSignal(store.logged);
  const [least, setLeast] = useState("info");
  const box = useRef<HTMLOListElement>(null);
  const stick = useRef(true);
  const lines = store.lines.filter((line) => LEVELS.indexOf(line["@level"]) >= LEVELS.indexOf(least));
  useEffect(() => {
    store.unseenErrors = 0;
    if (stick.current && box.current) {
      box.current.scrollTop = box.current.scrollHeight;
    }
  });
  return (
    <div className="log">
      <div className="bar">
        <div className="seg">
          {LEVELS.map((level) => (
            <button key={level} aria-selected={least === level} onClick={() => setLeast(level)}>{level === "info" ? "all" : level === "warn" ? "warnings" : "errors"}</button>
          ))}
        </div>
        <span className="dim">{lines.length} lines</span>
      </div>
      <ol className="scroll" ref={box} onScroll={(event) => {
        const list = event.currentTarget;
        stick.current = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
      }}>
        {lines.map((line, n) => <Line key={n} line={line} />)}
      </ol>
    </div>
  );
}

const OWN = ["path", "error", "stack"];

function Line({ line }: { line: LogLine }): React.ReactElement {
  const more = Object.entries(line).filter(([key]) => !key.startsWith("@") && !OWN.includes(key));
  const long = [line.error, line.stack].filter(Boolean).join("\n");
  const message = line["@message"];
  const [first, ...rest] = message.split("\n");
  const detail = [rest.join("\n"), long].filter(Boolean).join("\n");
  return (
    <li className={line["@level"]}>
      <time>{new Date(line["@timestamp"]).toLocaleTimeString("en-GB")}</time>
      <span className="level">{line["@level"]}</span>
      <div>
        {first} {line.path ? <span className="tag">{line.path}</span> : null}
        {more.map(([key, value]) => <span key={key} className="dim"> {key}={String(value)}</span>)}
        {detail ? <details open={line["@level"] === "error"}><summary>traceback</summary><pre>{detail}</pre></details> : null}
      </div>
    </li>
  );
}
