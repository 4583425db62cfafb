/**
 * A dashboard of @grafana/scenes: its query runners, transformations and panels are Grafana's own. A panel
 * records each frame when it draws.
 *
 *     data source ──▶ SceneQueryRunner ──▶ SceneDataTransformer ──▶ VizPanel ──▶ records
 *                                                     └──▶ `-- Dashboard --` ──▶ SceneQueryRunner ──▶ …
 */

import * as data from "@grafana/data";
import * as runtime from "@grafana/runtime";
import { LazyLoader, SceneDataTransformer, type SceneObject, SceneObjectBase, SceneQueryRunner, SceneTimeRange, VizPanel } from "@grafana/scenes";
import React from "react";
import { createRoot } from "react-dom/client";
import { Observable, debounceTime, defer, finalize, map, tap } from "rxjs";

import { behaviour } from "./live";
import { type Record, recordOf } from "./records";
import { runRequest } from "./requests";

/** One panel: of a data source, or of the rows of the panel `shares`. */
export interface Part {
  key: string;
  uid?: string;
  shares?: string;
  targets?: any[];
  points?: number;
  transformations?: any[];
}

const EXPRESSIONS = { type: "__expr__", uid: "__expr__", name: "Expression", id: -100 };
const SHARED = { type: "datasource", uid: "-- Dashboard --" };
const EMPTIES_ARRAYS = !/^(12|13\.0)\./.test(process.env.GRAFANA!);
const HEIGHT = 200; // px of a panel

/** Pixels above the first panel: with more than the window has, all panels are off screen. */
class Board extends SceneObjectBase<any> {
  static Component = ({ model }: any) => {
    const { panels, above } = model.useState();
    const style = { position: "relative", width: 640, height: HEIGHT } as const;
    const draw = (panel: any) =>
      React.createElement(LazyLoader, { key: panel.state.key } as any, React.createElement("div", { style }, React.createElement(panel.Component, { model: panel })));
    return React.createElement("div", null, React.createElement("div", { style: { height: above } }), panels.map(draw));
  };
}

/** The data source of panels that show the rows of another panel. */
class Dashboard extends (data as any).DataSourceApi {
  constructor() {
    super({ ...SHARED, name: SHARED.uid, id: 0, jsonData: {}, meta: {} });
    this.meta = {};
  }

  query({ scopedVars, targets: [{ panel, where }] }: any): Observable<any> {
    const from: SceneObject = scopedVars.__sceneObject.value.valueOf();
    const provider = panelOf(from.getRoot(), panel).state.$data!.state.$data as any;
    return defer(() => {
      const leave = activate(provider);
      return provider.getResultsStream().pipe(
        debounceTime(50),
        map(({ data: { series, state } }: any) => ({ data: series.map((frame: any) => shared(frame, where)), state, key: "source" })),
        finalize(leave)
      );
    });
  }

  testDatasource() {
    return Promise.resolve({ status: "success", message: "" });
  }
}

/** A frame for another panel: it has the same arrays, unless rows are filtered. */
function shared(frame: any, where?: number) {
  const fields = frame.fields.map((field: any) => ({ ...field, config: { ...field.config }, state: { ...field.state } }));
  if (!where) {
    return { ...frame, fields };
  }
  const numbers = fields.find(({ name }: any) => name === "n").values;
  const rows = [...numbers.keys()].filter((row) => numbers[row] % where === 0);
  const picked = fields.map((field: any) => ({ ...field, values: rows.map((row) => field.values[row]) }));
  return { ...frame, fields: picked, length: rows.length };
}

/** Keeps a provider and its parents active. */
function activate(object: SceneObject): () => void {
  const parents = object.parent ? activate(object.parent) : () => undefined;
  const leave = object.activate();
  return () => {
    leave();
    parents();
  };
}

const panelOf = (root: SceneObject, key: string): VizPanel =>
  (root as any).all.find((panel: VizPanel) => panel.state.key === key);

export class Scene {
  readonly records = new Map<string, Record[]>();
  private readonly board: any;

  constructor(
    private readonly raw: { from: string; to: string },
    parts: Part[],
    sourceOf: (uid: string) => any
  ) {
    install(this, sourceOf);
    const panels = parts.map((part) => this.panel(part));
    this.board = new Board({ panels, above: 0, $timeRange: new SceneTimeRange(raw) });
    this.board.all = panels;
    const place = document.createElement("div");
    document.body.append(place);
    createRoot(place).render(React.createElement(this.board.Component, { model: this.board }));
  }

  private panel({ key, uid, shares, targets = [], points = 30_000, transformations = [] }: Part): VizPanel {
    this.records.set(key, []);
    const datasource = shares ? SHARED : { type: "stream", uid };
    const queries = shares ? [{ refId: "A", datasource, panel: shares }] : targets.map((target) => ({ datasource, ...target }));
    const runner = new SceneQueryRunner({ datasource, queries, maxDataPoints: points });
    // Grafana 13.1 and later set this option for each panel of a dashboard
    const emptied = { _UNSAFE_clearPreviousFieldValues: EMPTIES_ARRAYS } as object;
    return new VizPanel({ key, title: key, pluginId: "recorder", $data: new SceneDataTransformer({ $data: runner, transformations }), ...emptied });
  }

  draw(key: string, panel: any): void {
    this.records.get(key)!.push(recordOf(panel.series, panel.annotations ?? [], this.raw, panel.state, panel.error ?? panel.errors?.[0]));
  }

  refresh(): void {
    this.board.state.$timeRange.onRefresh();
  }

  /** Show only these panels, as a tab of a dashboard does. */
  show(keys: string[]): void {
    this.board.setState({ panels: this.board.all.filter((panel: VizPanel) => keys.includes(panel.state.key!)) });
  }

  /** Draw a panel again, with the rows that it has. */
  redraw(key: string): void {
    const panel = panelOf(this.board, key);
    panel.clearFieldConfigCache();
    panel.forceRender();
  }

  scroll(above: number): void {
    this.board.setState({ above });
  }

  transform(key: string, transformations: any[]): void {
    const transformer = panelOf(this.board, key).state.$data as SceneDataTransformer;
    transformer.setState({ transformations });
    transformer.reprocessTransformations();
  }

  /** Change the query of a panel that shows the rows of another one. */
  share(key: string, changed: { panel?: string; where?: number }): void {
    const runner = panelOf(this.board, key).state.$data!.state.$data as SceneQueryRunner;
    runner.setState({ queries: runner.state.queries.map((query) => ({ ...query, ...changed })) });
    runner.runQueries();
  }
}

let current: Scene;
let installed = false;

/** Grafana's services as far as scenes use them. */
function install(scene: Scene, sourceOf: (uid: string) => any): void {
  current = scene;
  if (installed) {
    return;
  }
  installed = true;
  const shared = new (Dashboard as any)();
  const settings = (runtime as any).getDataSourceSrv();
  settings.get = async (ref: any) => (ref.uid === SHARED.uid ? shared : sourceOf(ref.uid));
  const plugin: any = new data.PanelPlugin(Recorder as any);
  plugin.meta = { id: "recorder", name: "recorder", info: {} };
  (runtime as any).setPluginImportUtils({ importPanelPlugin: async () => plugin, getPanelPluginFromCache: () => plugin });
  const { limitTransformer, concatenateTransformer } = data.standardTransformers;
  data.standardTransformersRegistry.setInit(() =>
    [limitTransformer, concatenateTransformer].map((found) => ({ id: found.id, name: found.name, transformation: loaded(found) }) as any)
  );
  (window as any).theme = data.createTheme(); // for the parts of @grafana/ui
  (runtime as any).setRunRequest(run);
  (runtime as any).setAppEvents?.(new data.EventBusSrv());
}

/** A transformer, and the function that loads it: the registry has functions from 13.1 on. */
function loaded(transformer: object): any {
  return Object.defineProperties(async () => transformer, Object.getOwnPropertyDescriptors(transformer));
}

/** Runs a query, in one call of the server if some part of it is an expression. */
function run(source: any, request: any): Observable<any> {
  const isExpression = request.targets.some(({ type }: any) => type === "math");
  const answers = runRequest(source, request, isExpression ? evaluate : undefined);
  return behaviour.forgetsKey ? answers.pipe(tap(({ series }) => series.forEach((frame: any) => delete frame.appendRow))) : answers;
}

/** Grafana's server evaluates expressions; the data sources are not asked in the browser. */
const evaluate = (request: any): Observable<any> => new (runtime as any).DataSourceWithBackend({ ...EXPRESSIONS, jsonData: {}, meta: {} }).query(request);

/** The panel plugin: it records what it is given. */
function Recorder({ data: panel, title }: any) {
  React.useMemo(() => current.draw(title, panel), [panel]);
  return null;
}
