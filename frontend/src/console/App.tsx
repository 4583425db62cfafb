// The page: what there is on the left, what is looked at in the middle.

import * as React from "react";
import { useState } from "react";
import { Channels, Log } from "./Lists";
import { PanelView } from "./Panel";
import { Sidebar } from "./Sidebar";
import { Icon } from "./parts";
import { expand, Store, USERS, useSignal } from "./store";
import { show, whole } from "./units";

const SPANS: [number, string][] = [[15, "15 s"], [60, "1 min"], [300, "5 min"], [900, "15 min"], [3600, "1 h"]];

type Tab = "panels" | "channels" | "log";

export function App({ store }: { store: Store }): React.ReactElement {
  useSignal(store.signal);
  const [tab, setTab] = useState<Tab>("panels");
  const [drawer, setDrawer] = useState(false);
  return (
    <div className="page">
      <Top store={store} onMenu={() => setDrawer(!drawer)} />
      {store.reloading.error ? (
        <details className="reload-error" open>
          <summary>The saved code cannot be loaded; the old code goes on</summary>
          <pre>{store.reloading.error}</pre>
        </details>
      ) : null}
      <div className="body">
        <Sidebar store={store} open={drawer} onDone={() => setDrawer(false)} />
        <main>
          <Tabs store={store} tab={tab} onTab={setTab} />
          {tab === "panels" ? <Panels store={store} /> : tab === "channels" ? <Channels store={store} /> : <Log store={store} />}
        </main>
      </div>
    </div>
  );
}

function Top({ store, onMenu }: { store: Store; onMenu: () => void }): React.ReactElement {
  useSignal(store.pulse);
  const { reloading, totals, rates } = store;
  return (
    <header className="top">
      <button className="icon only-narrow" aria-label="Streams and settings" onClick={onMenu}><Icon name="menu" /></button>
      <svg className="mark" viewBox="0 0 32 32" aria-hidden="true"><path d="M3 18c4 0 4-9 8-9s4 14 8 14 4-9 10-9" /></svg>
      <h1>{store.known?.title ?? "aiostream console"}</h1>
      <span className={`dot ${store.online ? "on" : "off"}`} title={store.online ? "connected" : "not connected"} />
      {store.online ? null : <span className="bad">not connected; trying again</span>}
      {reloading.count ? <span className="tag" key={reloading.count}>reloaded {reloading.count}×, {reloading.seconds.toFixed(2)} s</span> : null}
      <span className="gap" />
      <dl className="totals">
        <div><dt>streams</dt><dd>{totals.running ?? 0}</dd></div>
        <div><dt>rows/s</dt><dd>{whole(rates.rows ?? 0)}</dd></div>
        <div className="wide"><dt>data</dt><dd>{show(rates.bytes ?? 0, "binBps")}</dd></div>
        <div className={totals.dropped ? "warn" : "wide"}><dt>dropped</dt><dd>{whole(totals.dropped ?? 0)}</dd></div>
        <div className={totals.errors ? "bad" : "wide"}><dt>errors</dt><dd>{totals.errors ?? 0}</dd></div>
        {store.pageDropped ? <div className="warn"><dt>this page lost</dt><dd>{whole(store.pageDropped)}</dd></div> : null}
      </dl>
      <button className="icon" aria-label="Light or dark" title="Light or dark" onClick={swapTheme}><Icon name="sun" /></button>
    </header>
  );
}

function swapTheme(): void {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch {
    // a page that may keep nothing looks as the system does next time
  }
  window.dispatchEvent(new Event("restyle"));
}

function Tabs({ store, tab, onTab }: { store: Store; tab: Tab; onTab: (tab: Tab) => void }): React.ReactElement {
  useSignal(store.logged);
  useSignal(store.pulse);
  const [path, setPath] = useState("");
  const follow = (event: React.FormEvent): void => {
    event.preventDefault();
    if (path.trim()) {
      store.addAll(expand(path.trim()));
      onTab("panels");
    }
  };
  return (
    <nav className="tabs">
      <div className="seg big" role="tablist">
        <button role="tab" aria-selected={tab === "panels"} onClick={() => onTab("panels")}>Panels <small>{store.panels.length}</small></button>
        <button role="tab" aria-selected={tab === "channels"} onClick={() => onTab("channels")}>Channels <small>{store.channels.length}</small></button>
        <button role="tab" aria-selected={tab === "log"} onClick={() => onTab("log")}>Log {store.unseenErrors ? <small className="bad">{store.unseenErrors}</small> : <small>{store.lines.length}</small>}</button>
      </div>
      <form className="follow" onSubmit={follow}>
        <input aria-label="Path to follow" placeholder="path, or many: walk/10/{1..12}" value={path} onChange={(event) => setPath(event.currentTarget.value)} spellCheck={false} />
        <button type="submit" className="primary">Follow</button>
      </form>
      <span className="gap" />
      <label>as <select aria-label="User" value={store.who} onChange={(event) => { store.who = event.currentTarget.value; store.signal.change(); }}>
        {Object.keys(USERS).map((name) => <option key={name}>{name}</option>)}
      </select></label>
      <select aria-label="Time range" value={store.seconds} onChange={(event) => { store.seconds = Number(event.currentTarget.value); store.signal.change(); }}>
        {SPANS.map(([seconds, name]) => <option key={seconds} value={seconds}>{name}</option>)}
      </select>
      {store.panels.length > 1 ? <button onClick={() => store.clear()}>Close all</button> : null}
    </nav>
  );
}

function Panels({ store }: { store: Store }): React.ReactElement {
  if (!store.panels.length) {
    return <p className="empty">Pick a stream on the left, or type a path above, to see its rows.</p>;
  }
  return <div className="panels" data-count={Math.min(4, store.panels.length)}>{store.panels.map((panel) => <PanelView key={panel.key} panel={panel} />)}</div>;
}
