/**
 * The data source in the browser: how a panel's queries are answered.
 *
 *     exact queries ──▶ exact/query.ts, one follower for each frame
 *     the others    ──▶ Grafana's own class: ds/query, and the channel in the frame's meta
 *
 * Annotations, `-- Mixed --` and ranges that end in the past get only their rows: they wait for the
 * end of a query, and a stream has none.
 */

import type { DataQueryRequest, DataQueryResponse, DataSourceInstanceSettings, ScopedVars } from "@grafana/data";
import { DataSourceWithBackend, type HealthCheckResult, config, getTemplateSrv } from "@grafana/runtime";
import { type Observable, from, merge, of } from "rxjs";

import { withAlias } from "./alias";
import { type Backend, runExactQuery } from "./exact/query";
import { keepArrays } from "./keptArrays";
import { endsNow } from "./range";
import { placeholderOf, withRefIds } from "./responses";
import type { StreamQuery, StreamSettings } from "./types";
import { replaceVariables } from "./variables";

export class StreamDataSource extends DataSourceWithBackend<StreamQuery, StreamSettings> {
  // Grafana 9 treats a class whose constructor takes another number of parameters as an Angular one
  constructor(settings: DataSourceInstanceSettings<StreamSettings>) {
    super(settings);
    this.annotations = {};
    const standard = this.streamOptionsProvider;
    this.streamOptionsProvider = (request, frame) => {
      const options = standard(request, frame);
      options.maxLength! *= frame.meta?.custom?.thinned ?? 1; // the live rows after a thinned history
      return options;
    };
  }

  private health?: HealthCheckResult;

  override async callHealthCheck() {
    return (this.health = await super.callHealthCheck());
  }

  /** Grafana's method drops the details of a test that succeeds, which the page of settings shows. */
  override async testDatasource() {
    return { ...(await super.testDatasource()), details: this.health?.details };
  }

  override filterQuery(query: StreamQuery): boolean {
    return !query.hide;
  }

  override applyTemplateVariables(query: StreamQuery, scopedVars: ScopedVars): StreamQuery {
    return replaceVariables(query, (text) => getTemplateSrv().replace(text, scopedVars));
  }

  override query(request: DataQueryRequest<StreamQuery>): Observable<DataQueryResponse> {
    const filtered = request.targets.filter((target) => this.filterQuery(target));
    const targets = maySubscribe(request) ? filtered : filtered.map(withoutStreaming);
    const backend: Backend = {
      query: (changed) => super.query(changed),
      rows: (path, after) =>
        this.getResource("replay/rows", { path, after }, { showErrorAlert: false, hideFromInspector: true }),
    };
    const separate = targets.filter((target) => isExact(target) || target.alias);
    const answers = separate.map((target) => {
      // a request id for each: Grafana cancels a request with the same id
      const own = { ...request, requestId: `${request.requestId}-${target.refId}`, targets: [target] };
      const answer = isExact(target)
        ? runExactQuery(backend, own, this.applyTemplateVariables(target, request.scopedVars), this.uid)
        : withRefIds(super.query(own), [target.refId]);
      return target.alias
        ? withAlias(answer, getTemplateSrv().replace(target.alias, request.scopedVars))
        : answer;
    });
    const others = targets.filter((target) => !separate.includes(target));
    if (others.length > 0) {
      const answer = super.query({ ...request, targets: others });
      answers.push(withRefIds(answer, others.map(({ refId }) => refId)));
    }
    const placeholders = answers.length > 1 ? targets.map(placeholderOf) : [];
    return answers.length > 0 ? merge(from(placeholders), ...answers).pipe(keepArrays) : of({ data: [] });
  }
}

const isExact = (query: StreamQuery): boolean => query.exact === true && query.withStreaming !== false;

const withoutStreaming = (query: StreamQuery): StreamQuery => ({ ...query, withStreaming: false });

/** Whether the requester accepts rows after the first answer. */
function maySubscribe(request: DataQueryRequest<StreamQuery>): boolean {
  const mixed = String(request.requestId ?? "").startsWith("mixed-");
  const annotation = request.targets.some((target) => target.refId === "Anno");
  const isPublic = Boolean((config as { publicDashboardAccessToken?: string }).publicDashboardAccessToken);
  return endsNow(request) && !mixed && !annotation && !isPublic;
}
