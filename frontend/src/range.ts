/** The current time range of a panel: `now-5m` moves on after the panel's request. */

import { type DataQueryRequest, type TimeRange, rangeUtil } from "@grafana/data";

type Ranged = Pick<DataQueryRequest, "range" | "timezone">;

export function currentRange({ range, timezone }: Ranged): TimeRange {
  return rangeUtil.convertRawToRange(range.raw, timezone);
}

/** Whether the range moves with the clock and ends now or later. */
export function endsNow(request: Ranged): boolean {
  const to = request.range?.raw?.to;
  const before = Date.now();
  return typeof to === "string" && to.includes("now") && currentRange(request).to.valueOf() >= before;
}
