/**
 * Which drawn rows stay when a history is loaded again.
 *
 *     drawn    ├───────────────┤
 *     history           ├──────────▶
 *     frame    ├────────┼──────────▶   rows of the history replace drawn ones of its time
 *
 * Logs in memory are lost with their process, and a history may begin later than before. What was drawn
 * stays, so that a restart does not empty the panel. Rows of two epochs have no common numbering: only
 * their times order them, and whether rows are missing between them is unknown.
 */

import type { RowBuffer } from "./buffer";
import type { Gap } from "./notices";

/**
 * The drawn rows from `from` on that stay before a history, and the gap between the two. The history of
 * another upstream system that has rows of the same time replaces all of them.
 *
 * `sameEpoch`: the numbering is the same. `sameUpstream`: the upstream system is the same, or the stream
 * cannot read it again. `sameColumns`: the columns have the same names, types and labels.
 */
export function keep(
  drawn: RowBuffer,
  history: RowBuffer,
  from: number,
  sameEpoch: boolean,
  sameUpstream: boolean,
  sameColumns: boolean
): { rows: RowBuffer; gap?: Gap } {
  const visible = drawn.between(from, Infinity);
  const begin = history.earliest;
  const overlaps = visible.latest >= begin;
  const joins = sameColumns && (sameUpstream || !overlaps);
  const rows = visible.between(from, joins ? begin : -Infinity);
  if (rows.rows > 0) {
    const gap = { after: rows.latest, before: finite(begin), certain: sameEpoch };
    return { rows, gap: sameEpoch && overlaps ? undefined : gap };
  }
  const isLost = visible.earliest < begin;
  return { rows, gap: isLost ? { before: finite(begin) ?? Date.now(), certain: true } : undefined };
}

const finite = (time: number): number | undefined => (Number.isFinite(time) ? time : undefined);
