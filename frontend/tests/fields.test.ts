import { describe, expect, test } from "vitest";

import { fieldsOf, labelOf, type Field, type NumberField } from "../src/forms/fields";
import { findQuery, findSource, parsePluginSchema } from "../src/forms/pluginSchema";
import { hasVariable, parseNumber, rangeOf, validate, validateAll, withValue } from "../src/forms/values";
import { KINDS } from "./kinds";

const SOURCE = KINDS.sources[0]!;
const FIELDS = fieldsOf(SOURCE.settings!);

function field(name: string): Field {
  const found = FIELDS.find((each) => each.name === name);
  if (!found) {
    throw new Error(`no field ${name}`);
  }
  return found;
}

describe("fields of a schema", () => {
  test("required fields come first, the others in the author's order", () => {
    expect(FIELDS.map(({ name }) => name).slice(0, 4)).toEqual(["url", "keepAlive", "verify", "qos"]);
  });

  test.each([
    ["url", "text"],
    ["keepAlive", "number"],
    ["verify", "switch"],
    ["qos", "select"],
    ["compression", "select"],
    ["topics", "list"],
    ["clientId", "text"],
    ["wait", "number"],
    ["maybe", "select"],
    ["port", "number"],
    ["labels", "map"],
    ["login", "union"],
    ["password", "secret"],
    ["retries", "group"],
    ["proxy", "group"],
    ["renamed", "list"],
    ["pair", "json"],
  ])("%s is a %s", (name, kind) => {
    expect(field(name).kind).toBe(kind);
  });

  test("a union with None is nullable, and a nullable bool is a select", () => {
    expect(field("clientId").nullable).toBe(true);
    expect(field("maybe")).toMatchObject({ nullable: true, options: [{ label: "Yes" }, { label: "No" }] });
    expect(field("url").nullable).toBe(false);
  });

  test("a required bool without a default is a select: a switch would show a value nobody chose", () => {
    const [agreed] = fieldsOf({ properties: { agreed: { type: "boolean" } }, required: ["agreed"] });
    expect(agreed).toMatchObject({ required: true, options: [{ label: "Yes" }, { label: "No" }] });
    expect(validate(agreed!, undefined)).toBe("Agreed is required");
  });

  test("a date is a text with a pattern and an example", () => {
    const text = { type: "string", format: "date", pattern: "^\\d{4}-\\d{2}-\\d{2}$", examples: ["2026-01-31"] };
    const [day] = fieldsOf({ properties: { day: { anyOf: [text, { type: "null" }], default: null } } });
    expect(day!.placeholder).toBe("2026-01-31");
    expect(validate(day!, "31.1.2026")).toContain("expected a string that matches");
    expect(validate(day!, "2026-01-31")).toBe("");
  });

  test("a member with one possible value has no field and is always written", () => {
    expect(field("proxy")).toMatchObject({ constants: { kind: "http" }, fields: [{ name: "host" }] });
  });

  test("the help is the first paragraph of the class, the label is the name of the field", () => {
    expect(field("proxy")).toMatchObject({ label: "Proxy", help: "The proxy to the broker." });
    expect(field("renamed")).toMatchObject({ label: "Renamed" });
  });

  test("a class that contains itself ends with a JSON field", () => {
    let inside: Field = field("tree");
    let depth = 0;
    while (inside.kind === "group") {
      inside = inside.fields[0]!;
      depth += 1;
    }
    expect(inside.kind).toBe("json");
    expect(depth).toBeLessThan(10);
  });

  test("defaults and examples are placeholders", () => {
    expect([field("keepAlive").placeholder, field("url").placeholder, field("clientId").placeholder]).toEqual(
      ["60", "mqtt://broker", ""],
    );
  });

  test.each([
    ["keepAlive", "Keep alive"],
    ["url", "URL"],
    ["client_id", "Client ID"],
    ["hz", "Hz"],
    ["x", "X"],
  ])("the label of %s is %s", (name, label) => {
    expect(labelOf(name)).toBe(label);
  });
});

describe("values", () => {
  test.each([
    ["keepAlive", 60, ""],
    ["keepAlive", undefined, ""],
    ["keepAlive", 0, "expected 1 to 600, got 0"],
    ["keepAlive", 1.5, "expected an integer, got 1.5"],
    ["keepAlive", "soon", 'expected an integer, got "soon"'],
    ["url", undefined, "URL is required"],
    ["url", "http://x", 'expected a string that matches ^mqtts?://, got "http://x"'],
    ["url", 5, "expected a string, got 5"],
    ["verify", "yes", 'expected true or false, got "yes"'],
    ["qos", "never", 'expected one of at most once, at least once, got "never"'],
    ["port", "http", ""],
    ["port", 80, ""],
    ["topics", "one", 'expected a list, got "one"'],
    ["renamed", [{}, {}], "expected at most 1 entry, got 2"],
    ["labels", [1], "expected an object, got [1]"],
    ["login", { method: "magic" }, 'expected one of password, anonymous, got "magic"'],
    ["password", 7, ""],
  ])("%s = %j: %s", (name, value, error) => {
    expect(validate(field(name), value)).toBe(error);
  });

  test.each([
    ["keepAlive", "1 to 600"],
    ["port", ""],
  ])("the range of %s: %s", (name, range) => {
    expect(rangeOf(field(name) as NumberField)).toBe(range);
  });

  test("a range has thousands separators", () => {
    expect(rangeOf({ min: 1000, max: 64_000_000 } as NumberField)).toBe("1,000 to 64,000,000");
    expect(rangeOf({ exclusiveMin: 0, max: 60 } as NumberField)).toBe("above 0 and at most 60");
  });

  test("nested values are validated, and errors are named by the path", () => {
    const values = {
      url: "mqtt://x",
      retries: { times: -1 },
      renamed: [{ kind: "http" }],
      labels: { a: 5 },
      login: { method: "password" },
    };
    expect(validateAll(FIELDS, values)).toEqual({
      "retries.times": "expected at least 0, got -1",
      "renamed[0].host": "Host is required",
      "labels.a": "expected a string, got 5",
      "login.user": "User is required",
    });
  });

  test("a path field accepts what a path can contain", () => {
    const [site, file] = fieldsOf(SOURCE.queries![0]!.schema, { paths: SOURCE.queries![0]!.fields });
    expect(validate(site!, "berlin-1")).toBe("");
    expect(validate(site!, "a/b")).toBe('expected letters, digits and any of _-=., got "a/b"');
    expect(validate(file!, "a/b.log")).toBe("");
    expect(validate(file!, "a/../b")).not.toBe("");
  });

  test("a template variable is valid in any field of a query", () => {
    expect(hasVariable("a ${site} b") && hasVariable("$x") && hasVariable("[[old]]")).toBe(true);
    expect(hasVariable("5 $")).toBe(false);
    expect(validate(field("keepAlive"), "$rate", { variables: true })).toBe("");
    expect(validate(field("keepAlive"), "$rate")).not.toBe("");
  });

  test.each([
    ["60", false, 60],
    ["-0.5", false, -0.5],
    ["1.", false, "1."],
    ["1.", true, 1],
    ["1e3", true, 1000],
    [" 7 ", true, 7],
    ["0x10", true, "0x10"],
    ["12 apples", true, "12 apples"],
    ["  ", true, undefined],
    ["-", false, "-"],
    ["9007199254740991", true, 9007199254740991],
    ["9007199254740993", true, "9007199254740993"],
    [" -9223372036854775808", true, "-9223372036854775808"],
  ])("typed %j (left: %j) is %j", (text, done, value) => {
    expect(parseNumber(text, done)).toBe(value);
  });

  test("an integer that a number cannot hold is valid as a text", () => {
    const [id] = fieldsOf({ properties: { id: { type: "integer", minimum: 0 } } });
    expect(validate(id!, "9007199254740993")).toBe("");
    expect(validate(id!, "-9007199254740993")).toBe('expected at least 0, got "-9007199254740993"');
    expect(validate(id!, "9007199254740993.5")).toBe('expected an integer, got "9007199254740993.5"');
    expect(validate(id!, "12")).toBe('expected an integer, got "12"');
  });

  test("characters are counted and matched as in Python", () => {
    const [name] = fieldsOf({ properties: { name: { type: "string", maxLength: 2, pattern: "^\\w+$" } } });
    expect(validate(name!, "👍👍")).toBe("");
    expect(validate(name!, "Öß")).toBe("");
    expect(validate(name!, "abc")).toBe("expected at most 2 characters, got 3");
    expect(validate(name!, "-")).toBe('expected a string that matches ^\\w+$, got "-"');
    const [place] = fieldsOf({ properties: { place: { type: "string", pattern: "^[a-z]+$" } } });
    expect(validate(place!, "größe")).toBe('expected a string that matches ^[a-z]+$, got "größe"');
  });

  test("an empty value removes the key, or is null where the default is not", () => {
    expect(withValue({ keepAlive: 5, more: 1 }, field("keepAlive"), undefined)).toEqual({ more: 1 });
    expect(withValue({ clientId: "a" }, field("clientId"), "")).toEqual({});
    expect(withValue({ wait: 3 }, field("wait"), undefined)).toEqual({ wait: null });
    expect(withValue({ verify: true }, field("verify"), false)).toEqual({ verify: false });
  });
});

describe("the plugin schema", () => {
  test("another version is refused", () => {
    expect(() => parsePluginSchema({ ...KINDS, version: 2 })).toThrow("expected version 1, got 2");
    expect(() => parsePluginSchema({})).toThrow("expected at least one data source class, got {}");
    expect(() => parsePluginSchema(null)).toThrow("expected at least one data source class, got null");
  });

  test("a setting selects the source; the first is the default; an unknown one is undefined", () => {
    const several = { ...KINDS, sourceSetting: "source", sources: [{ name: "a" }, { name: "b" }] };
    expect(findSource(several, {})?.name).toBe("a");
    expect(findSource(several, { source: "b" })?.name).toBe("b");
    expect(findSource(several, { source: "c" })).toBeUndefined();
    expect(findSource(KINDS, { source: "c" })?.name).toBe("");
  });

  test("a query without a type means the only stream", () => {
    expect(findQuery(SOURCE, "alive")?.name).toBe("alive");
    expect(findQuery(SOURCE, undefined)).toBeUndefined();
    expect(findQuery({ ...SOURCE, queries: SOURCE.queries!.slice(0, 1) }, "")?.name).toBe("topic");
    expect(findQuery(SOURCE, 7)).toBeUndefined();
  });
});
