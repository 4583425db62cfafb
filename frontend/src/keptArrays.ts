/**
 * Keeps the arrays of frames that were handed out.
 *
 * From 13.1 on Grafana sets the length of the arrays of a panel's earlier frames to zero. Others may still
 * have them: the buffer of a live channel, panels that show the rows of this one, a transformation. It
 * leaves frames alone that have the key `appendRow` (@grafana/scenes 8.13.3 and later). Copies of a frame
 * have the key, too.
 */

import type { DataQueryResponse } from "@grafana/data";
import { set } from "lodash";
import { type MonoTypeOperatorFunction, tap } from "rxjs";

// in place and by lodash, as in responses.ts; some frames of older versions have a method of this name
export const keepArrays: MonoTypeOperatorFunction<DataQueryResponse> = tap(({ data }) =>
  data.forEach((frame) => "appendRow" in frame || set(frame, "appendRow", undefined))
);
