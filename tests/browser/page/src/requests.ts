/** Grafana's `runRequest`: the responses of one query, kept by their keys, as the data of a panel. */

import { type DataFrame, rangeUtil } from "@grafana/data";
import { Observable, catchError, map, merge, of, share, takeUntil, timer } from "rxjs";

const SHOW_LOADING = 200; // ms without an answer after which a panel shows that it loads

export function runRequest(source: any, request: any, ask = source.query?.bind(source)): Observable<any> {
  const packets = new Map<string, any>();
  const empty = { series: [], annotations: [], request, timeRange: request.range };
  const answers = (ask(request) as Observable<any>).pipe(
    map((packet) => {
      packets.set(packet.key ?? packet.data[0]?.refId ?? "A", packet);
      return { ...empty, ...merged([...packets.values()]), state: stateOf(packet), timeRange: rangeOf(packet, request) };
    }),
    catchError((error) => of({ ...empty, state: "Error", error, errors: [error] })),
    share()
  );
  return merge(timer(SHOW_LOADING).pipe(map(() => ({ ...empty, state: "Loading" })), takeUntil(answers)), answers);
}

/** Whether Grafana draws a frame as annotations, and not with the series. */
export const isAnnotations = (frame: DataFrame): boolean => frame.meta?.dataTopic === "annotations";

function merged(packets: any[]) {
  const frames: DataFrame[] = packets.flatMap(({ data }) => data);
  const errors = packets.flatMap(({ error, errors = error ? [error] : [] }) => errors);
  return {
    series: frames.filter((frame) => !isAnnotations(frame)),
    annotations: frames.filter(isAnnotations),
    error: errors[0],
    errors: errors.length > 0 ? errors : undefined,
  };
}

const stateOf = ({ state, error }: any): string => state ?? (error ? "Error" : "Done");

/** The range of a panel with live rows moves with the clock. */
function rangeOf({ state }: any, { range, rangeRaw, timezone }: any) {
  return state === "Streaming" ? rangeUtil.convertRawToRange(rangeRaw, timezone) : range;
}
