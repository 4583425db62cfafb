// One panel: a chart, a table or the raw packets of what one viewer receives.

import * as React from "react";
import { memo, useEffect, useRef, useState } from "react";
import { Chart, drawScheduler } from "./chart";
import { counted, formatCount, formatTime, formatValue } from "./format";
import { Icon } from "./Icon";
import { Menu } from "./Menu";
import { valueAt } from "./rowBuffer";
import { useSignal } from "./signal";
import type { Panel } from "./store";

const TABLE_ROWS = 100;
const TEXT_INTERVAL_MS = 250;
const SLOW_SECONDS = 0.5;

type View = "chart" | "table" | "packets";

export const PanelView = memo(function PanelView({ panel }: { panel: Panel }): React.ReactElement {
  useSignal(panel.changed);
  const [selected, setView] = useState<View | null>(null);
  const view = selected ?? (panel.rows.length && !panel.rows.time ? "table" : "chart");
  const [visible, section] = useVisible();
  const store = panel.store;
  return (
    <section className="panel" ref={section} data-path={panel.path}>
      <header>
        <h3 title={panel.path}>{panel.path || String(panel.query?.queryType ?? "query")}</h3>
        {panel.userName !== "Admin" ? <span className="tag">{panel.userName}</span> : null}
        {panel.delay ? <span className="tag warn">slow</span> : null}
        <span className="gap" />
        <div className="seg" role="tablist">
          {(["chart", "table", "packets"] as View[]).map((each) => (
            <button key={each} role="tab" aria-selected={view === each} onClick={() => setView(each)}>
              {each}
            </button>
          ))}
        </div>
        <Menu label="More">
          <button onClick={() => store.addPanel(panel.path, panel.query, 0)}>Second viewer</button>
          <button onClick={() => store.addPanel(panel.path, panel.query, SLOW_SECONDS)}>
            Slow viewer ({SLOW_SECONDS} s per packet)
          </button>
          <button onClick={() => void panel.rejoin()}>Leave and join again</button>
          <button onClick={() => void store.connection.request({ type: "disconnect" })}>
            Close Grafana’s connection to the plugin
          </button>
          <Publish panel={panel} />
        </Menu>
        <button className="icon" aria-label="Close" title="Close" onClick={() => store.removePanel(panel)}>
          <Icon name="close" />
        </button>
      </header>
      {panel.error ? <p className="problem">{panel.error}</p> : null}
      {panel.ended ? <p className="notice">The stream has ended: its method returned.</p> : null}
      {visible ? <Notices panel={panel} /> : null}
      <div className="view">{visible ? <ViewBody panel={panel} view={view} /> : null}</div>
      {visible ? <Status panel={panel} /> : null}
    </section>
  );
});

function ViewBody({ panel, view }: { panel: Panel; view: View }): React.ReactElement {
  switch (view) {
    case "chart":
      return <ChartView panel={panel} />;
    case "table":
      return <TableView panel={panel} />;
    case "packets":
      return <PacketsView panel={panel} />;
  }
}

function Notices({ panel }: { panel: Panel }): React.ReactElement | null {
  useSignal(panel.store.stateChanged);
  const all = [...panel.rows.notices, ...(panel.rows.status ? [panel.rows.status] : [])];
  return all.length ? <p className="notice">{all.map((each) => each.text).join(" · ")}</p> : null;
}

function ChartView({ panel }: { panel: Panel }): React.ReactElement {
  const element = useRef<HTMLDivElement>(null);
  const [chart, setChart] = useState<Chart | null>(null);
  useEffect(() => {
    const created = new Chart(element.current!, panel.rows, panel.store.seconds);
    const onThemeChange = (): void => created.restyle();
    panel.onRows = () => {
      if (!created.paused) {
        drawScheduler.request(created);
      }
    };
    window.addEventListener("themechange", onThemeChange);
    const unsubscribe = panel.store.changed.subscribe(() => {
      if (created.seconds !== panel.store.seconds) {
        created.seconds = panel.store.seconds;
        drawScheduler.request(created);
      }
    });
    setChart(created);
    return () => {
      panel.onRows = () => undefined;
      window.removeEventListener("themechange", onThemeChange);
      unsubscribe();
      created.destroy();
    };
  }, [panel]);
  return (
    <>
      <div className="plot" ref={element} />
      {chart ? <Legend panel={panel} chart={chart} /> : null}
    </>
  );
}

function Legend({ panel, chart }: { panel: Panel; chart: Chart }): React.ReactElement {
  const render = useInterval(TEXT_INTERVAL_MS);
  useEffect(() => {
    chart.onChange = render;
    return () => {
      chart.onChange = () => undefined;
    };
  }, [chart]);
  const rows = panel.rows;
  const at = chart.hover ?? rows.length - 1;
  const columns = new Map(rows.columns.map((column) => [column.name, column]));
  const time = rows.time?.values[at];
  if (!rows.length) {
    return <div className="legend dim">{panel.error ? "" : "no rows yet"}</div>;
  }
  return (
    <div className="legend">
      <button
        className="icon"
        aria-pressed={chart.paused}
        title={chart.paused ? "Go live" : "Pause"}
        aria-label={chart.paused ? "Go live" : "Pause"}
        onClick={() => chart.pause(!chart.paused)}
      >
        <Icon name={chart.paused ? "play" : "pause"} />
      </button>
      {chart.series.length ? null : <span className="dim">no numeric column; see the table</span>}
      {chart.series.map((each) => (
        <button
          key={each.name}
          className="series"
          aria-pressed={each.shown}
          onClick={() => chart.toggle(each.name)}
        >
          <i style={{ background: each.colour }} />
          {each.name} <b>{formatValue(valueAt(columns.get(each.name), at), each.unit, each.decimals)}</b>
        </button>
      ))}
      <span className="gap" />
      {typeof time === "number" ? <time>{formatTime(time)}</time> : null}
    </div>
  );
}

function TableView({ panel }: { panel: Panel }): React.ReactElement {
  useInterval(TEXT_INTERVAL_MS);
  const { columns, length } = panel.rows;
  const count = Math.min(TABLE_ROWS, length);
  const numbers = Array.from({ length: count }, (_, n) => length - 1 - n);
  return (
    <div className="scroll">
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.name} className={column.kind}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {numbers.map((row) => (
            <tr key={panel.rows.first + row}>
              {columns.map((column) => (
                <td key={column.name} className={column.kind}>
                  {column.kind === "time" && typeof column.values[row] === "number"
                    ? formatTime(column.values[row] as number)
                    : formatValue(
                        column.values[row],
                        column.kind === "boolean" ? "bool" : column.unit,
                        column.decimals,
                      )}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function PacketsView({ panel }: { panel: Panel }): React.ReactElement {
  useInterval(TEXT_INTERVAL_MS);
  const packets = panel.rows.packets.slice(-50).reverse();
  return (
    <ol className="scroll packets">
      {packets.map((packet, n) => (
        <li key={panel.rows.version - n}>
          {packet.length > 4000 ? `${packet.slice(0, 4000)} … (${packet.length} characters)` : packet}
        </li>
      ))}
    </ol>
  );
}

// The state of the channel, and what this viewer has received.
function Status({ panel }: { panel: Panel }): React.ReactElement {
  useSignal(panel.store.stateChanged);
  const channel = panel.store.byPath.get(panel.path.replace(/^x\//, ""));
  const rows = panel.rows;
  const state =
    panel.channelId === null && panel.answered
      ? "answered"
      : panel.channelId === null
        ? "not subscribed"
        : (channel?.state ?? "opening");
  return (
    <footer>
      <span className={`state ${state.replace(" ", "-")}`}>{state}</span>
      <span>{formatCount(channel?.rowsPerSecond ?? 0)} rows/s</span>
      <span>
        {counted(rows.total, "row")}
        {panel.historyRows ? `, ${panel.historyRows.toLocaleString("en")} from history` : ""}
      </span>
      {channel ? <span>{counted(channel.subscribers, "subscriber")}</span> : null}
      {channel?.dropped ? <span className="warn">{channel.dropped.toLocaleString("en")} dropped</span> : null}
      {channel?.errors ? <span className="bad">{counted(channel.errors, "error")}</span> : null}
      {rows.outOfOrder ? <span className="warn">{counted(rows.outOfOrder, "packet")} out of order</span> : null}
      {channel?.cursor ? (
        <span className="mono" title="cursor of the last row">
          {channel.cursor}
        </span>
      ) : null}
    </footer>
  );
}

function Publish({ panel }: { panel: Panel }): React.ReactElement {
  const [text, setText] = useState("{}");
  const [result, setResult] = useState("");
  const send = async (event: React.FormEvent): Promise<void> => {
    event.preventDefault();
    try {
      const answer = await panel.store.connection.request({
        type: "publish",
        path: panel.path,
        data: JSON.parse(text),
        user: panel.user,
      });
      setResult(answer.error ?? `published${answer.data ? `: ${answer.data}` : ""}`);
    } catch (error) {
      setResult(`not JSON: ${(error as Error).message}`);
    }
  };
  return (
    <form className="publish" onSubmit={(event) => void send(event)}>
      <label>
        Publish JSON
        <input value={text} onChange={(event) => setText(event.currentTarget.value)} spellCheck={false} />
      </label>
      <button type="submit">Publish</button>
      {result ? <output>{result}</output> : null}
    </form>
  );
}

function useInterval(ms: number): () => void {
  const [, setCount] = useState(0);
  const render = (): void => setCount((count) => count + 1);
  useEffect(() => {
    const timer = setInterval(render, ms);
    return () => clearInterval(timer);
  }, [ms]);
  return render;
}

// Whether the element is on the screen: panels that are not cost nothing.
function useVisible(): [boolean, React.RefObject<HTMLElement>] {
  const element = useRef<HTMLElement>(null);
  const [visible, setVisible] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => setVisible(entry.isIntersecting), {
      rootMargin: "200px",
    });
    observer.observe(element.current!);
    return () => observer.disconnect();
  }, []);
  return [visible, element];
}
