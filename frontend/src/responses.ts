/**
 * The keys and refIds of responses, and the messages of errors.
 *
 * Grafana draws series in the order in which the keys of their responses first appear. It numbers the
 * keys of live frames in the order of the answers, and a live packet with a schema replaces the frame's
 * refId by its own, which is none (`StreamingDataFrame.push` in @grafana/data).
 */

import { type DataFrame, type DataQueryResponse, LoadingState } from "@grafana/data";
import { set } from "lodash";
import { type Observable, map } from "rxjs";

/** The key of a query's response; responses of its frames have different suffixes. */
export const keyOf = (refId: string, suffix: number | "fixed"): string => `query-${refId}-${suffix}`;

/** What a panel shows of an error. */
export const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error);

/** An empty response with the key of the query's first frame: it fixes the order of the series. */
export function placeholderOf({ refId }: { refId: string }): DataQueryResponse {
  return { data: [], key: keyOf(refId, 0), state: LoadingState.Loading };
}

/** Gives the answers of Grafana's own class keys by their query, and live frames its refId. */
export function withRefIds(answer: Observable<DataQueryResponse>, refIds: string[]): Observable<DataQueryResponse> {
  const queries = new Map<string | undefined, string>(); // refIds by Grafana's keys
  const keys = new Map<string | undefined, string>();
  const counts: Record<string, number> = {};
  return answer.pipe(
    map((response) => {
      const { data, key } = response;
      const refId = queries.get(key) ?? (refIds.length === 1 ? refIds[0] : (data[0] as DataFrame)?.refId);
      if (!refId) {
        return response;
      }
      if (!keys.has(key)) {
        counts[refId] = (counts[refId] ?? -1) + 1;
        queries.set(key, refId);
        keys.set(key, keyOf(refId, counts[refId]));
      }
      if (key) {
        // in place, because panels check the class of live frames; by lodash, because in Grafana's sandbox
        // only the page's own functions can change its objects
        data.forEach((frame) => set(frame, "refId", refId));
      }
      return { ...response, key: keys.get(key) };
    })
  );
}
