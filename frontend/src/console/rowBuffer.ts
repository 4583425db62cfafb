// The newest rows of one panel, by column, and its newest packets.

import type { Packet, RawData, RawField } from "./protocol";

const MAX_ROWS = 20_000;
const MAX_PACKETS = 200;

export interface Column {
  name: string;
  kind: "time" | "number" | "boolean" | "text";
  unit: string;
  decimals: number | undefined;
  min: number | undefined;
  max: number | undefined;
  hidden: boolean; // from the chart
  spanNulls: boolean; // a line connects the values on both sides of nulls
  values: unknown[];
}

export class RowBuffer {
  columns: Column[] = [];
  time: Column | null = null;
  total = 0;
  first = 0; // number of the first row that is kept
  version = 0; // grows with each change
  schemaVersion = 0; // grows with each change of the columns
  packets: string[] = [];
  notices: { severity: string; text: string }[] = [];
  status: { severity: string; text: string } | null = null;
  outOfOrder = 0;

  get length(): number {
    return this.columns.length ? this.columns[0].values.length : 0;
  }

  add(packet: Packet, keepRaw = true): void {
    if (keepRaw) {
      this.packets.push(JSON.stringify(packet));
      if (this.packets.length > MAX_PACKETS) {
        this.packets.splice(0, this.packets.length - MAX_PACKETS);
      }
    }
    if (packet.status !== undefined) {
      this.status = packet.status;
    }
    if (packet.schema) {
      this.setFields(packet.schema.fields);
      this.notices = packet.schema.meta?.notices ?? [];
    }
    if (packet.data) {
      this.append(packet.data);
    }
    this.version++;
  }

  // New columns start with nulls; columns that are still there keep their values.
  private setFields(fields: RawField[]): void {
    const names = fields.map(displayName);
    if (names.length === this.columns.length && names.every((name, n) => name === this.columns[n].name)) {
      return;
    }
    const known = new Map(this.columns.map((column) => [column.name, column]));
    const length = this.length;
    this.columns = fields.map((field, n) => {
      const found = known.get(names[n]);
      return found ?? column(field, names[n], length);
    });
    this.time = this.columns.find((each) => each.kind === "time") ?? null;
    this.schemaVersion++;
  }

  private append(data: RawData): void {
    const count = data.values[0]?.length ?? 0;
    if (!count || data.values.length !== this.columns.length) {
      return;
    }
    restoreSpecialNumbers(data);
    const before = this.length;
    this.columns.forEach((column, n) => {
      const values = column.values;
      for (const value of data.values[n]) {
        values.push(column.kind === "boolean" && value !== null ? Number(value) : value);
      }
    });
    this.total += count;
    this.sortFrom(before);
    if (this.length > 2 * MAX_ROWS) {
      const excess = this.length - MAX_ROWS;
      this.columns.forEach((column) => column.values.splice(0, excess));
      this.first += excess;
    }
  }

  // Charts need times in order: sort when a packet starts before the last row.
  private sortFrom(from: number): void {
    const times = this.time?.values as number[] | undefined;
    if (!times || from === 0) {
      return;
    }
    let ordered = true;
    for (let n = from; n < times.length && ordered; n++) {
      ordered = times[n] >= times[n - 1];
    }
    if (ordered) {
      return;
    }
    this.outOfOrder++;
    const order = times.map((_, n) => n).sort((a, b) => times[a] - times[b] || a - b);
    this.columns.forEach((column) => {
      const values = order.map((n) => column.values[n]);
      column.values.splice(0, values.length, ...values);
    });
  }
}

// The newest value of a column up to a row, without nulls if they do not end its line.
export function valueAt(column: Column | undefined, row: number): unknown {
  let at = row;
  while (column?.spanNulls && at > 0 && column.values[at] === null) {
    at--;
  }
  return column?.values[at];
}

function displayName(field: RawField): string {
  const config = field.config;
  const configured = config?.displayName ?? config?.displayNameFromDS;
  if (configured) {
    return configured;
  }
  const labels = Object.entries(field.labels ?? {});
  const text = labels.map(([key, value]) => `${key}=${value}`).join(", ");
  return labels.length ? `${field.name} {${text}}` : field.name;
}

function column(field: RawField, name: string, length: number): Column {
  const kind =
    field.type === "time" || field.type === "number" || field.type === "boolean" ? field.type : "text";
  return {
    name,
    kind,
    unit: field.config?.unit ?? "",
    decimals: field.config?.decimals,
    min: field.config?.min,
    max: field.config?.max,
    hidden: field.config?.custom?.hideFrom?.viz === true,
    spanNulls: Boolean(field.config?.custom?.spanNulls),
    values: new Array<unknown>(length).fill(null),
  };
}

// NaN and infinities, which JSON does not have, are listed in `entities`.
function restoreSpecialNumbers(data: RawData): void {
  data.entities?.forEach((entity, n) => {
    entity?.NaN?.forEach((row) => (data.values[n][row] = NaN));
    entity?.Inf?.forEach((row) => (data.values[n][row] = Infinity));
    entity?.NegInf?.forEach((row) => (data.values[n][row] = -Infinity));
  });
}
