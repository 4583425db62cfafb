// The page: streams and settings in the sidebar; panels, channels or the log next to it.

import * as React from "react";
import { useState } from "react";
import { ChannelsView } from "./ChannelsView";
import { formatCount, formatValue } from "./format";
import { Icon } from "./Icon";
import { LogView } from "./LogView";
import { PanelView } from "./PanelView";
import { Sidebar } from "./Sidebar";
import { useSignal } from "./signal";
import { expandRanges, type Store, USERS } from "./store";

const RANGES: [number, string][] = [
  [15, "15 s"],
  [60, "1 min"],
  [300, "5 min"],
  [900, "15 min"],
  [3600, "1 h"],
];

type Tab = "panels" | "channels" | "log";

export function App({ store }: { store: Store }): React.ReactElement {
  useSignal(store.changed);
  const [tab, setTab] = useState<Tab>("panels");
  const [sidebarOpen, setSidebarOpen] = useState(false);
  return (
    <div className="page">
      <Header store={store} onMenu={() => setSidebarOpen(!sidebarOpen)} />
      {store.reload.error ? (
        <details className="reload-error" open>
          <summary>The saved code cannot be loaded. The old code keeps running.</summary>
          <pre>{store.reload.error}</pre>
        </details>
      ) : null}
      <div className="body">
        <Sidebar store={store} open={sidebarOpen} onDone={() => setSidebarOpen(false)} />
        <main>
          <Tabs store={store} tab={tab} onTab={setTab} />
          {tab === "panels" ? (
            <Panels store={store} />
          ) : tab === "channels" ? (
            <ChannelsView store={store} />
          ) : (
            <LogView store={store} />
          )}
        </main>
      </div>
    </div>
  );
}

function Header({ store, onMenu }: { store: Store; onMenu: () => void }): React.ReactElement {
  useSignal(store.stateChanged);
  const { reload, totals, rates } = store;
  return (
    <header className="top">
      <button className="icon only-narrow" aria-label="Streams and settings" onClick={onMenu}>
        <Icon name="menu" />
      </button>
      <svg className="logo" viewBox="0 0 32 32" aria-hidden="true">
        <path d="M3 18c4 0 4-9 8-9s4 14 8 14 4-9 10-9" />
      </svg>
      <h1>{store.hello?.title ?? "aiostream console"}</h1>
      <span
        className={`dot ${store.connected ? "on" : "off"}`}
        title={store.connected ? "connected" : "not connected"}
      />
      {store.connected ? null : <span className="bad">not connected, reconnecting …</span>}
      {reload.count ? (
        <span className="tag" key={reload.count}>
          reloaded {reload.count}×, {reload.seconds.toFixed(2)} s
        </span>
      ) : null}
      <span className="gap" />
      <dl className="totals">
        <div>
          <dt>streams</dt>
          <dd>{totals.running ?? 0}</dd>
        </div>
        <div>
          <dt>rows/s</dt>
          <dd>{formatCount(rates.rows ?? 0)}</dd>
        </div>
        <div className="wide">
          <dt>data</dt>
          <dd>{formatValue(rates.bytes ?? 0, "binBps")}</dd>
        </div>
        <div className={totals.dropped ? "warn" : "wide"}>
          <dt>dropped</dt>
          <dd>{formatCount(totals.dropped ?? 0)}</dd>
        </div>
        <div className={totals.errors ? "bad" : "wide"}>
          <dt>errors</dt>
          <dd>{totals.errors ?? 0}</dd>
        </div>
        {totals.queued ? (
          <div className="warn" title={`of ${formatValue(totals.queueLimit ?? 0, "bytes")}`}>
            <dt>slow queues</dt>
            <dd>{formatValue(totals.queued, "bytes")}</dd>
          </div>
        ) : null}
        {store.pageDropped ? (
          <div className="warn">
            <dt>lost by this page</dt>
            <dd>{formatCount(store.pageDropped)}</dd>
          </div>
        ) : null}
      </dl>
      <button className="icon" aria-label="Toggle theme" title="Toggle theme" onClick={toggleTheme}>
        <Icon name="sun" />
      </button>
    </header>
  );
}

function toggleTheme(): void {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // without storage the next page uses the system theme
  }
  window.dispatchEvent(new Event("themechange"));
}

function Tabs({
  store,
  tab,
  onTab,
}: {
  store: Store;
  tab: Tab;
  onTab: (tab: Tab) => void;
}): React.ReactElement {
  useSignal(store.logChanged);
  useSignal(store.stateChanged);
  const [path, setPath] = useState("");
  const follow = (event: React.FormEvent): void => {
    event.preventDefault();
    if (path.trim()) {
      store.addPanels(expandRanges(path.trim()));
      onTab("panels");
    }
  };
  return (
    <nav className="tabs">
      <div className="seg big" role="tablist">
        <button role="tab" aria-selected={tab === "panels"} onClick={() => onTab("panels")}>
          Panels <small>{store.panels.length}</small>
        </button>
        <button role="tab" aria-selected={tab === "channels"} onClick={() => onTab("channels")}>
          Channels <small>{store.channels.length}</small>
        </button>
        <button role="tab" aria-selected={tab === "log"} onClick={() => onTab("log")}>
          Log{" "}
          {store.unseenErrors ? (
            <small className="bad">{store.unseenErrors}</small>
          ) : (
            <small>{store.lines.length}</small>
          )}
        </button>
      </div>
      <form className="follow" onSubmit={follow}>
        <input
          aria-label="Path to follow"
          placeholder="path, or several: walk/10/{1..12}"
          value={path}
          onChange={(event) => setPath(event.currentTarget.value)}
          spellCheck={false}
        />
        <button type="submit" className="primary">
          Follow
        </button>
      </form>
      <span className="gap" />
      <label>
        as{" "}
        <select
          aria-label="User"
          value={store.userName}
          onChange={(event) => {
            store.userName = event.currentTarget.value;
            store.changed.emit();
          }}
        >
          {Object.keys(USERS).map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      <select
        aria-label="Time range"
        value={store.seconds}
        onChange={(event) => {
          store.seconds = Number(event.currentTarget.value);
          store.changed.emit();
        }}
      >
        {RANGES.map(([seconds, name]) => (
          <option key={seconds} value={seconds}>
            {name}
          </option>
        ))}
      </select>
      {store.panels.length > 1 ? <button onClick={() => store.removeAllPanels()}>Close all</button> : null}
    </nav>
  );
}

/** A command that pushes a row to this console; on another machine it needs the page's token. */
function curlLine(): string {
  const token = new URLSearchParams(location.search).get("token");
  const access = token ? ` -H 'Authorization: Bearer ${token}'` : "";
  return `curl ${location.origin}/push/lab/run-1 -d '{"loss": 0.1}'${access}`;
}

function Panels({ store }: { store: Store }): React.ReactElement {
  if (!store.panels.length && store.hello?.push) {
    return (
      <div className="empty">
        <p>Push a row from any program, and it is drawn here:</p>
        <pre>{curlLine()}</pre>
      </div>
    );
  }
  if (!store.panels.length) {
    return (
      <p className="empty">
        Run a stream <span className="only-wide">on the left</span>
        <span className="only-narrow">of the menu</span>, or type a path above, to see its rows.
      </p>
    );
  }
  return (
    <div className="panels" data-count={Math.min(4, store.panels.length)}>
      {store.panels.map((panel) => (
        <PanelView key={panel.key} panel={panel} />
      ))}
    </div>
  );
}
