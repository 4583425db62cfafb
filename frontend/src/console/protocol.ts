// The messages between the page and the console's server, as aiostream_ds.console.session has them.

export interface User {
  login: string;
  name: string;
  email: string;
  role: string;
}

export interface Packet {
  schema?: RawSchema;
  data?: RawData;
  status?: { severity: string; text: string } | null;
}

export interface RawSchema {
  name?: string;
  meta?: { channel?: string; notices?: { severity: string; text: string }[] };
  fields: RawField[];
}

export interface RawField {
  name: string;
  type?: string;
  labels?: Record<string, string>;
  config?: {
    unit?: string;
    displayName?: string;
    displayNameFromDS?: string;
    decimals?: number;
    min?: number;
    max?: number;
    custom?: { spanNulls?: boolean | number; hideFrom?: { viz?: boolean } } | null;
  };
}

export interface RawData {
  values: unknown[][];
  entities?: ({ NaN?: number[]; Inf?: number[]; NegInf?: number[] } | null)[];
}

export interface Answer {
  error?: string;
  status?: number | string;
  ok?: boolean;
  message?: string;
  frames?: Packet[];
  query?: Record<string, unknown>;
  data?: string;
}

// Path, state, subscribers, packets, rows, bytes, dropped rows, starts, errors, cursor, last error.
export type ChannelLine = [
  string,
  string,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  string,
  string,
];

export interface State {
  channels: ChannelLine[];
  totals: Record<string, number>;
  pages: number;
  page_dropped: number;
}

export interface LogLine {
  "@level": string;
  "@message": string;
  "@timestamp": string;
  "@module": string;
  path?: string;
  error?: string;
  [key: string]: unknown;
}

export interface Hello {
  title: string;
  uid: string;
  forms: unknown;
  settings: Record<string, unknown>;
  secrets: string[];
  path: string;
  push: boolean; // whether programs can push rows
}

export interface Reload {
  count: number;
  seconds: number;
  error: string;
}

// A request of the page. `type` names it; the answer has the same id.
export interface PageRequest {
  type: "follow" | "query" | "save" | "health" | "publish" | "resource" | "disconnect";
  path?: string;
  query?: Record<string, unknown>;
  seconds?: number;
  points?: number;
  user?: User | null;
  delay?: number;
  settings?: Record<string, unknown>;
  secrets?: Record<string, string>;
  data?: unknown;
  method?: string;
}

export interface Message {
  id?: number;
  packets?: Packet[];
  ended?: boolean;
  hello?: Hello;
  state?: State;
  log?: LogLine[];
  reload?: Reload;
  pushed?: string[]; // channels with rows that programs have pushed
}
