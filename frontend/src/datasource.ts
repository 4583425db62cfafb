/**
 * The data source in the browser: what a panel's queries become.
 *
 *     exact queries ──▶ follow/exact.ts, one follower for each frame
 *     the others    ──▶ Grafana's own class: ds/query, and the channel in the frame's meta
 *
 * Whoever waits for a query's end would wait for ever for a stream: annotations, `-- Mixed --` and
 * ranges that are over are answered with their rows alone.
 */

import type { DataQueryRequest, DataQueryResponse, DataSourceInstanceSettings, ScopedVars } from "@grafana/data";
import { DataSourceWithBackend, config, getTemplateSrv } from "@grafana/runtime";
import { type Observable, from, merge, of } from "rxjs";

import { named } from "./follow/alias";
import { type Ask, exactly, placeOf } from "./follow/exact";
import { endsNow } from "./follow/range";
import type { StreamQuery, StreamSettings } from "./types";
import { interpolated } from "./variables";

export class StreamDataSource extends DataSourceWithBackend<StreamQuery, StreamSettings> {
  // Grafana 9 takes a class whose constructor has another number of parameters for one of Angular's.
  constructor(settings: DataSourceInstanceSettings<StreamSettings>) {
    super(settings);
    this.annotations = {};
  }

  override filterQuery(query: StreamQuery): boolean {
    return !query.hide;
  }

  override applyTemplateVariables(query: StreamQuery, scopedVars: ScopedVars): StreamQuery {
    return interpolated(query, (text) => getTemplateSrv().replace(text, scopedVars));
  }

  override query(request: DataQueryRequest<StreamQuery>): Observable<DataQueryResponse> {
    const filtered = request.targets.filter((target) => this.filterQuery(target));
    const targets = mayFollow(request) ? filtered : filtered.map(withoutStreaming);
    const ask: Ask = {
      query: (changed) => super.query(changed),
      rows: (path, after) =>
        this.getResource("seam/rows", { path, after }, { showErrorAlert: false, hideFromInspector: true }),
    };
    const alone = targets.filter((target) => isExact(target) || target.alias);
    const answers = alone.map((target) => {
      // an own id: Grafana ends a request of the same one
      const own = { ...request, requestId: `${request.requestId}-${target.refId}`, targets: [target] };
      const answer = isExact(target) ? exactly(ask, own, target) : super.query(own);
      return target.alias ? named(answer, getTemplateSrv().replace(target.alias, request.scopedVars)) : answer;
    });
    const others = targets.filter((target) => !alone.includes(target));
    if (others.length > 0) {
      answers.push(super.query({ ...request, targets: others }));
    }
    // series stand, and take their colours, in the order in which the keys of packets came first
    const places = answers.length > 1 ? alone.filter(isExact).map(placeOf) : [];
    return answers.length > 0 ? merge(from(places), ...answers) : of({ data: [] });
  }
}

function isExact(query: StreamQuery): boolean {
  return query.exact === true && query.withStreaming !== false;
}

function withoutStreaming(query: StreamQuery): StreamQuery {
  return { ...query, withStreaming: false };
}

/** Whether who asks takes rows as they come. */
function mayFollow(request: DataQueryRequest<StreamQuery>): boolean {
  const mixed = String(request.requestId ?? "").startsWith("mixed-");
  const annotation = request.targets.some((target) => target.refId === "Anno");
  const isPublic = Boolean((config as { publicDashboardAccessToken?: string }).publicDashboardAccessToken);
  return endsNow(request) && !mixed && !annotation && !isPublic;
}
