// One panel: a chart, a table or raw packets of what one viewer gets.

import * as React from "react";
import { memo, useEffect, useRef, useState } from "react";
import { Chart, painter } from "./chart";
import { Panel, useSignal } from "./store";
import { clock, show, whole } from "./units";
import { Icon, Menu } from "./parts";

const SHOWN_ROWS = 100;
const TEXT_EVERY_MS = 250;
const SLOW_SECONDS = 0.5;

type View = "chart" | "table" | "packets";

export const PanelView = memo(function PanelView({ panel }: { panel: Panel }): React.ReactElement {
  useSignal(panel.signal);
  const [picked, setView] = useState<View | null>(null);
  const view = picked ?? (panel.rows.length && !panel.rows.time ? "table" : "chart");
  const [seen, box] = useSeen();
  const store = panel.store;
  return (
    <section className="panel" ref={box} data-path={panel.path}>
      <header>
        <h3 title={panel.path}>{panel.path || String(panel.query?.queryType ?? "query")}</h3>
        {panel.who !== "Admin" ? <span className="tag">{panel.who}</span> : null}
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
          <button onClick={() => store.add(panel.path, panel.query, 0)}>Second viewer</button>
          <button onClick={() => store.add(panel.path, panel.query, SLOW_SECONDS)}>Slow viewer ({SLOW_SECONDS} s a packet)</button>
          <button onClick={() => void panel.reconnect()}>Leave and come back</button>
          <button onClick={() => void store.link.ask({ do: "cut" })}>Cut Grafana’s connection to the plugin</button>
          <Publish panel={panel} />
        </Menu>
        <button className="icon" aria-label="Close" title="Close" onClick={() => store.remove(panel)}>
          <Icon name="close" />
        </button>
      </header>
      {panel.error ? <p className="problem">{panel.error}</p> : null}
      {panel.over ? <p className="notice">The stream has ended by its author’s return.</p> : null}
      {seen ? <Notices panel={panel} /> : null}
      <div className="view">{seen ? <Body panel={panel} view={view} /> : null}</div>
      {seen ? <Facts panel={panel} /> : null}
    </section>
  );
});

function Body({ panel, view }: { panel: Panel; view: View }): React.ReactElement {
  switch (view) {
    case "chart": return <ChartView panel={panel} />;
    case "table": return <TableView panel={panel} />;
    case "packets": return <PacketsView panel={panel} />;
  }
}

function Notices({ panel }: { panel: Panel }): React.ReactElement | null {
  useSignal(panel.store.pulse);
  const all = [...panel.rows.notices, ...(panel.rows.status ? [panel.rows.status] : [])];
  return all.length ? <p className="notice">{all.map((each) => each.text).join(" · ")}</p> : null;
}

function ChartView({ panel }: { panel: Panel }): React.ReactElement {
  const host = useRef<HTMLDivElement>(null);
  const [chart, setChart] = useState<Chart | null>(null);
  useEffect(() => {
    const made = new Chart(host.current!, panel.rows, panel.store.seconds);
    const restyle = (): void => made.restyle();
    panel.onRows = () => {
      if (!made.paused) {
        painter.ask(made);
      }
    };
    window.addEventListener("restyle", restyle);
    const unsubscribe = panel.store.signal.subscribe(() => {
      if (made.seconds !== panel.store.seconds) {
        made.seconds = panel.store.seconds;
        painter.ask(made);
      }
    });
    setChart(made);
    return () => {
      panel.onRows = () => undefined;
      window.removeEventListener("restyle", restyle);
      unsubscribe();
      made.destroy();
    };
  }, [panel]);
  return (
    <>
      <div className="plot" ref={host} />
      {chart ? <Legend panel={panel} chart={chart} /> : null}
    </>
  );
}

function Legend({ panel, chart }: { panel: Panel; chart: Chart }): React.ReactElement {
  const again = useTicks(TEXT_EVERY_MS);
  useEffect(() => {
    chart.onChange = again;
    return () => {
      chart.onChange = () => undefined;
    };
  }, [chart]);
  const rows = panel.rows;
  const at = chart.hover ?? rows.length - 1;
  const columns = new Map(rows.columns.map((column) => [column.name, column.values]));
  const time = rows.time?.values[at];
  if (!rows.length) {
    return <div className="legend dim">{panel.error ? "" : "no rows yet"}</div>;
  }
  return (
    <div className="legend">
      <button className="icon" aria-pressed={chart.paused} title={chart.paused ? "Live again" : "Pause"}
        aria-label={chart.paused ? "Live again" : "Pause"} onClick={() => chart.pause(!chart.paused)}>
        <Icon name={chart.paused ? "play" : "pause"} />
      </button>
      {chart.series.length ? null : <span className="dim">no column of numbers: see the table</span>}
      {chart.series.map((each) => (
        <button key={each.name} className="series" aria-pressed={each.shown} onClick={() => chart.toggle(each.name)}>
          <i style={{ background: each.colour }} />
          {each.name} <b>{show(columns.get(each.name)?.[at], each.unit, each.decimals)}</b>
        </button>
      ))}
      <span className="gap" />
      {typeof time === "number" ? <time>{clock(time)}</time> : null}
    </div>
  );
}

function TableView({ panel }: { panel: Panel }): React.ReactElement {
  useTicks(TEXT_EVERY_MS);
  const { columns, length } = panel.rows;
  const count = Math.min(SHOWN_ROWS, length);
  const numbers = Array.from({ length: count }, (_, n) => length - 1 - n);
  return (
    <div className="scroll">
      <table>
        <thead>
          <tr>{columns.map((column) => <th key={column.name} className={column.kind}>{column.name}</th>)}</tr>
        </thead>
        <tbody>
          {numbers.map((row) => (
            <tr key={panel.rows.first + row}>
              {columns.map((column) => (
                <td key={column.name} className={column.kind}>
                  {column.kind === "time" && typeof column.values[row] === "number"
                    ? clock(column.values[row] as number)
                    : show(column.values[row], column.kind === "boolean" ? "bool" : column.unit, column.decimals)}
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
  useTicks(TEXT_EVERY_MS);
  const packets = panel.rows.packets.slice(-50).reverse();
  return (
    <ol className="scroll packets">
      {packets.map((packet, n) => <li key={panel.rows.version - n}>{packet.length > 4000 ? `${packet.slice(0, 4000)} … (${packet.length} characters)` : packet}</li>)}
    </ol>
  );
}

// What the plugin says of the channel, and what this viewer got.
function Facts({ panel }: { panel: Panel }): React.ReactElement {
  useSignal(panel.store.pulse);
  const channel = panel.store.byPath.get(panel.path.replace(/^x\//, ""));
  const rows = panel.rows;
  const state = panel.feed === null && panel.answered ? "answered" : panel.feed === null ? "not followed" : channel?.state ?? "opening";
  return (
    <footer>
      <span className={`state ${state.replace(" ", "-")}`}>{state}</span>
      <span>{whole(channel?.rowsPerSecond ?? 0)} rows/s</span>
      <span>{rows.total.toLocaleString("en")} rows{panel.history ? `, ${panel.history.toLocaleString("en")} of them history` : ""}</span>
      {channel ? <span>{channel.readers} {channel.readers === 1 ? "reader" : "readers"}</span> : null}
      {channel?.dropped ? <span className="warn">{channel.dropped.toLocaleString("en")} dropped</span> : null}
      {channel?.errors ? <span className="bad">{channel.errors} errors</span> : null}
      {rows.disordered ? <span className="warn">{rows.disordered} packets out of order</span> : null}
      {channel?.cursor ? <span className="mono" title="where the stream stands">{channel.cursor}</span> : null}
    </footer>
  );
}

function Publish({ panel }: { panel: Panel }): React.ReactElement {
  const [text, setText] = useState("{}");
  const [said, setSaid] = useState("");
  const send = async (event: React.FormEvent): Promise<void> => {
    event.preventDefault();
    try {
      const answer = await panel.store.link.ask({ do: "publish", path: panel.path, data: JSON.parse(text), user: panel.user });
      setSaid(answer.error ?? `published${answer.data ? `: ${answer.data}` : ""}`);
    } catch (error) {
      setSaid(`not JSON: ${(error as Error).message}`);
    }
  };
  return (
    <form className="publish" onSubmit={(event) => void send(event)}>
      <label>
        Publish JSON
        <input value={text} onChange={(event) => setText(event.currentTarget.value)} spellCheck={false} />
      </label>
      <button type="submit">Publish</button>
      {said ? <output>{said}</output> : null}
    </form>
  );
}

function useTicks(every: number): () => void {
  const [, setCount] = useState(0);
  const again = (): void => setCount((count) => count + 1);
  useEffect(() => {
    const timer = setInterval(again, every);
    return () => clearInterval(timer);
  }, [every]);
  return again;
}

// Whether it is on the screen: a thousand panels cost what is seen of them.
function useSeen(): [boolean, React.RefObject<HTMLElement>] {
  const box = useRef<HTMLElement>(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => setSeen(entry.isIntersecting), { rootMargin: "200px" });
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  return [seen, box];
}
