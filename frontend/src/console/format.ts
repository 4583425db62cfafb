// Formats values for display. Units have Grafana's ids.

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const DECIMAL = ["", "k", "M", "G", "T"];

const SUFFIXES: Record<string, string> = {
  percent: "%",
  celsius: "°C",
  fahrenheit: "°F",
  ms: " ms",
  s: " s",
  humidity: "%H",
  volt: " V",
  amp: " A",
  watt: " W",
  hertz: " Hz",
  rotrpm: " rpm",
  pressurehpa: " hPa",
  lux: " lx",
  ppm: " ppm",
  cps: " /s",
  ops: " /s",
  rps: " /s",
  iops: " io/s",
  degree: "°",
  metre: " m",
  lengthm: " m",
  velocityms: " m/s",
  currencyUSD: " $",
  currencyEUR: " €",
};

export function unitLabel(unit: string): string {
  switch (unit) {
    case "bytes":
    case "decbytes":
      return "bytes";
    case "binBps":
    case "Bps":
      return "bytes/s";
    case "percentunit":
      return "ratio";
    case "short":
    case "":
    case "none":
      return "";
    default:
      return (SUFFIXES[unit] ?? unit).trim();
  }
}

export function formatValue(value: unknown, unit = "", decimals?: number): string {
  if (value === null || value === undefined) {
    return "–";
  }
  if (typeof value !== "number") {
    return typeof value === "object" ? JSON.stringify(value) : String(value);
  }
  if (!Number.isFinite(value)) {
    return String(value);
  }
  switch (unit) {
    case "bytes":
      return scaled(value, 1024, BINARY, " ");
    case "decbytes":
      return scaled(value, 1000, DECIMAL, " ") + "B";
    case "binBps":
      return scaled(value, 1024, BINARY, " ") + "/s";
    case "Bps":
      return scaled(value, 1000, DECIMAL, " ") + "B/s";
    case "percentunit":
      return round(value * 100, decimals) + "%";
    case "bool":
      return value ? "true" : "false";
    case "short":
      return scaled(value, 1000, DECIMAL, "");
    default:
      return round(value, decimals) + (SUFFIXES[unit] ?? (unit && unit !== "none" ? ` ${unit}` : ""));
  }
}

export function formatCount(value: number): string {
  return value < 10_000 ? String(Math.round(value)) : scaled(value, 1000, DECIMAL, "");
}

function scaled(value: number, base: number, prefixes: string[], gap: string): string {
  let step = 0;
  while (Math.abs(value) >= base && step < prefixes.length - 1) {
    value /= base;
    step++;
  }
  return `${round(value)}${prefixes[step] || gap.trim() ? gap + prefixes[step] : ""}`;
}

function round(value: number, decimals?: number): string {
  if (decimals !== undefined) {
    return value.toFixed(decimals);
  }
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) {
    return value.toExponential(3);
  }
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 4;
  return Number(value.toFixed(digits)).toString();
}

export function formatTime(ms: number): string {
  const at = new Date(ms);
  const two = (n: number): string => String(n).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** A number of things, such as `1 row` and `1,200 rows`. */
export function counted(count: number, noun: string): string {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}
