/** A panel's range as it is now: `now-5m` is another moment than when the panel asked. */

import { type DataQueryRequest, type TimeRange, rangeUtil } from "@grafana/data";

type Ranged = Pick<DataQueryRequest, "range" | "timezone">;

export function rangeNow({ range, timezone }: Ranged): TimeRange {
  return rangeUtil.convertRawToRange(range.raw, timezone);
}

/** Whether the range moves with the clock, and has not ended. */
export function endsNow(request: Ranged): boolean {
  const to = request.range?.raw?.to;
  const before = Date.now();
  return typeof to === "string" && to.includes("now") && rangeNow(request).to.valueOf() >= before;
}
