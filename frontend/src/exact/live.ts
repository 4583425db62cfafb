/** The tab's subscriptions over Grafana Live. All data sources of a plugin share this module. */

import { parseLiveChannelAddress } from "@grafana/data";
import { getGrafanaLiveSrv } from "@grafana/runtime";

import { type Listener, Subscriptions } from "./subscription";

export const subscriptions = new Subscriptions(open);

/**
 * Grafana's own parser sets the field that this version reads: `namespace` was renamed to `stream`.
 * Raw streams are not part of Grafana's stable API; without them followers poll.
 */
function open(channel: string, listener: Listener): (() => void) | undefined {
  const live = getGrafanaLiveSrv?.();
  const address = parseLiveChannelAddress?.(channel);
  if (!address || typeof live?.getStream !== "function") {
    return undefined;
  }
  const subscription = live.getStream(address).subscribe({
    next: (event) => {
      const { state, message } = event as { state?: string; message?: unknown };
      listener.event(event.type === "status" ? state : undefined, message);
    },
    error: () => listener.ended(),
    complete: () => listener.ended(),
  });
  return () => subscription.unsubscribe();
}
