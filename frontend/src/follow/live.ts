/** The taps of this tab, over Grafana Live. All data sources of a plugin share this module. */

import { parseLiveChannelAddress } from "@grafana/data";
import { getGrafanaLiveSrv } from "@grafana/runtime";

import { type Listener, Taps } from "../seam/tap";

export const taps = new Taps(open);

/**
 * The host's own parser sets the field that this host reads: `namespace` was renamed to `stream`.
 * Raw streams are not promised by Grafana's API; without them followers poll.
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
