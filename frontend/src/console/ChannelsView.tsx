// The list of the plugin's channels. Only the visible lines are rendered.

import * as React from "react";
import { useRef, useState } from "react";
import { formatCount, formatValue } from "./format";
import { useSignal } from "./signal";
import type { Channel, Store } from "./store";

const ROW_HEIGHT = 30;

export function ChannelsView({ store }: { store: Store }): React.ReactElement {
  useSignal(store.stateChanged);
  const [filter, setFilter] = useState("");
  const [scrollTop, setScrollTop] = useState(0);
  const [selectedPath, setSelectedPath] = useState("");
  const list = useRef<HTMLDivElement>(null);
  const shown = store.channels.filter((channel) => channel.path.includes(filter));
  const height = list.current?.clientHeight ?? 600;
  const from = Math.max(0, Math.floor(scrollTop / ROW_HEIGHT) - 5);
  const to = Math.min(shown.length, from + Math.ceil(height / ROW_HEIGHT) + 10);
  const selected = store.byPath.get(selectedPath);
  return (
    <div className="channels">
      <div className="bar">
        <input
          type="search"
          placeholder="Filter by path"
          aria-label="Filter by path"
          value={filter}
          onChange={(event) => setFilter(event.currentTarget.value)}
        />
        <span className="dim">
          {shown.length.toLocaleString("en")} of {store.channels.length.toLocaleString("en")} channels
        </span>
      </div>
      <div className="grid head">
        <span>path</span>
        <span>state</span>
        <span>subscribers</span>
        <span>rows/s</span>
        <span>rows</span>
        <span>bytes/s</span>
        <span>dropped</span>
        <span>runs</span>
        <span>errors</span>
        <span>cursor</span>
      </div>
      <div
        className="scroll lines"
        ref={list}
        onScroll={(event) => setScrollTop(event.currentTarget.scrollTop)}
      >
        <div style={{ height: shown.length * ROW_HEIGHT, position: "relative" }}>
          {shown.slice(from, to).map((channel, n) => (
            <ChannelRow
              key={channel.path}
              channel={channel}
              top={(from + n) * ROW_HEIGHT}
              onSelect={() => setSelectedPath(selectedPath === channel.path ? "" : channel.path)}
            />
          ))}
        </div>
      </div>
      {selected ? (
        <aside className="detail">
          <h3>{selected.path}</h3>
          <p>
            <button onClick={() => store.addPanel(selected.path, null)}>Follow</button>
          </p>
          {selected.error ? <pre>{selected.error}</pre> : <p className="dim">no error</p>}
        </aside>
      ) : null}
    </div>
  );
}

function ChannelRow({
  channel,
  top,
  onSelect,
}: {
  channel: Channel;
  top: number;
  onSelect: () => void;
}): React.ReactElement {
  return (
    <button className="grid line" style={{ top, height: ROW_HEIGHT }} onClick={onSelect}>
      <span className="mono">{channel.path}</span>
      <span>
        <i className={`state ${channel.state}`}>{channel.state}</i>
      </span>
      <span>{channel.subscribers}</span>
      <span>{formatCount(channel.rowsPerSecond)}</span>
      <span>{channel.rows.toLocaleString("en")}</span>
      <span>{formatValue(channel.bytesPerSecond, "binBps")}</span>
      <span className={channel.dropped ? "warn" : ""}>{channel.dropped.toLocaleString("en")}</span>
      <span>{channel.starts}</span>
      <span className={channel.errors ? "bad" : ""}>{channel.errors}</span>
      <span className="mono">{channel.cursor}</span>
    </button>
  );
}
