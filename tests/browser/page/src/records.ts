/** What a panel has drawn: rows have the number `n` within their `log`; a record stores runs of consecutive numbers. */

import { type DataFrame, rangeUtil } from "@grafana/data";

interface Run {
  log: string;
  first: number;
  last: number;
}

export interface Record {
  at: number;
  from: number;
  state: string;
  error?: string;
  notices: string[];
  frames: number;
  rows: number;
  names: string[];
  titles: string[];
  runs: Run[];
  annotations: string[];
}

export function recordOf(frames: DataFrame[], annotations: DataFrame[], raw: any, state: string, error?: { message?: string }): Record {
  return {
    at: Date.now(),
    from: rangeUtil.convertRawToRange(raw, "browser").from.valueOf(),
    state,
    error: error?.message,
    notices: frames.flatMap((frame) => (frame.meta?.notices ?? []).map(({ severity, text }) => `${severity}: ${text}`)),
    frames: frames.length,
    rows: frames.reduce((sum, frame) => sum + frame.length, 0),
    names: frames.flatMap((frame) => frame.fields.map(({ name }) => name)),
    titles: frames.flatMap((frame) => frame.fields.map(({ config }) => config.displayNameFromDS ?? "")),
    runs: frames.flatMap(runsOf),
    annotations: annotations.flatMap((frame) => column(frame, "text")),
  };
}

export function column(frame: DataFrame, name: string): any[] {
  return valuesOf(frame.fields.find((field) => field.name === name));
}

export function valuesOf(field: any): any[] {
  return Array.isArray(field.values) ? field.values : field.values.toArray();
}

function runsOf(frame: DataFrame): Run[] {
  const n = frame.fields.find(({ name }) => name === "n");
  const log = frame.fields.find(({ name }) => name === "log");
  if (!n || !log) {
    return [];
  }
  const numbers = valuesOf(n);
  const logs = valuesOf(log);
  const found: Run[] = [];
  numbers.forEach((number, row) => {
    const run = found[found.length - 1];
    if (run && run.log === logs[row] && number === run.last + 1) {
      run.last = number;
    } else {
      found.push({ log: logs[row], first: number, last: number });
    }
  });
  return found;
}
