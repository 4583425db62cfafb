import { describe, expect, test } from "vitest";

import { readDocument, sourceOf, specOf } from "../src/forms/document";
import { fieldsOf, labelOf, type Field, type NumberField } from "../src/forms/fields";
import { check, hasVariable, numberFrom, problems, rangeOf, withValue } from "../src/forms/values";
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

describe("a schema becomes fields", () => {
  test("what has to be filled in comes first, the rest as the author wrote it", () => {
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
    ["odd", "json"],
  ])("%s is a %s", (name, kind) => {
    expect(field(name).kind).toBe(kind);
  });

  test("None beside a type makes it nullable, and a switch that may be None has three positions", () => {
    expect(field("clientId").nullable).toBe(true);
    expect(field("maybe")).toMatchObject({ nullable: true, options: [{ label: "Yes" }, { label: "No" }] });
    expect(field("url").nullable).toBe(false);
  });

  test("a member with one possible value is not asked for, and is always written", () => {
    expect(field("proxy")).toMatchObject({ constants: { kind: "http" }, fields: [{ name: "host" }] });
  });

  test("a class's name is no label, its first paragraph is a help", () => {
    expect(field("proxy")).toMatchObject({ label: "Proxy", help: "A proxy on the way." });
    expect(field("renamed")).toMatchObject({ label: "Renamed" });
  });

  test("a class that holds itself ends somewhere", () => {
    let inside: Field = field("tree");
    let depth = 0;
    while (inside.kind === "group") {
      inside = inside.fields[0]!;
      depth += 1;
    }
    expect(inside.kind).toBe("json");
    expect(depth).toBeLessThan(10);
  });

  test("defaults and examples stand in empty boxes", () => {
    expect([field("keepAlive").placeholder, field("url").placeholder, field("clientId").placeholder]).toEqual(["60", "mqtt://broker", ""]);
  });

  test.each([
    ["keepAlive", "Keep alive"],
    ["url", "URL"],
    ["client_id", "Client ID"],
    ["hz", "Hz"],
    ["x", "X"],
  ])("%s is read %s", (name, label) => {
    expect(labelOf(name)).toBe(label);
  });
});

describe("values", () => {
  test.each([
    ["keepAlive", 60, ""],
    ["keepAlive", undefined, ""],
    ["keepAlive", 0, "0: allowed is 1 to 600"],
    ["keepAlive", 1.5, "1.5 is not a whole number"],
    ["keepAlive", "soon", '"soon" is not a whole number'],
    ["url", undefined, "URL is needed"],
    ["url", "http://x", '"http://x" does not match ^mqtts?://'],
    ["url", 5, "5 is no text"],
    ["verify", "yes", '"yes" is neither true nor false'],
    ["qos", "never", '"never" is none of at most once, at least once'],
    ["port", "http", ""],
    ["port", 80, ""],
    ["topics", "one", '"one" is no list'],
    ["renamed", [{}, {}], "2 entries; at most 1"],
    ["labels", [1], "[1] is no object"],
    ["login", { method: "magic" }, '"magic" is none of password, anonymous'],
    ["password", 7, ""],
  ])("%s = %j: %s", (name, value, said) => {
    expect(check(field(name), value)).toBe(said);
  });

  test.each([
    ["keepAlive", "1 to 600"],
    ["port", ""],
  ])("the range of %s is said: %s", (name, said) => {
    expect(rangeOf(field(name) as NumberField)).toBe(said);
  });

  test("a range is said in numbers that people read", () => {
    expect(rangeOf({ min: 1000, max: 64_000_000 } as NumberField)).toBe("1,000 to 64,000,000");
    expect(rangeOf({ above: 0, max: 60 } as NumberField)).toBe("above 0, at most 60");
  });

  test("problems are found however deep they are, and named by their place", () => {
    const values = { url: "mqtt://x", retries: { times: -1 }, renamed: [{ kind: "http" }], labels: { a: 5 }, login: { method: "password" } };
    expect(problems(FIELDS, values)).toEqual({
      "retries.times": "-1: allowed is at least 0",
      "renamed[0].host": "Host is needed",
      "labels.a": "5 is no text",
      "login.user": "User is needed",
    });
  });

  test("a path's field takes what a path can hold", () => {
    const [site, file] = fieldsOf(SOURCE.queries![0]!.schema, { paths: SOURCE.queries![0]!.fields });
    expect(check(site!, "berlin-1")).toBe("");
    expect(check(site!, "a/b")).toBe('"a/b": allowed are letters, digits and _ - = .');
    expect(check(file!, "a/b.log")).toBe("");
    expect(check(file!, "a/../b")).not.toBe("");
  });

  test("a template variable stands for any value, where there are any", () => {
    expect(hasVariable("a ${site} b") && hasVariable("$x") && hasVariable("[[old]]")).toBe(true);
    expect(hasVariable("5 $")).toBe(false);
    expect(check(field("keepAlive"), "$rate", { variables: true })).toBe("");
    expect(check(field("keepAlive"), "$rate")).not.toBe("");
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
  ])("typed %j (left: %j) is %j: nothing typed is lost", (text, done, value) => {
    expect(numberFrom(text, done)).toBe(value);
  });

  test("an emptied box gives its key up, so that the default counts; or says null where that is another", () => {
    expect(withValue({ keepAlive: 5, more: 1 }, field("keepAlive"), undefined)).toEqual({ more: 1 });
    expect(withValue({ clientId: "a" }, field("clientId"), "")).toEqual({});
    expect(withValue({ wait: 3 }, field("wait"), undefined)).toEqual({ wait: null });
    expect(withValue({ verify: true }, field("verify"), false)).toEqual({ verify: false });
  });
});

describe("the document", () => {
  test("another version is refused with both numbers", () => {
    expect(() => readDocument({ ...KINDS, version: 2 })).toThrow("its version is 2; this frontend knows 1");
    expect(() => readDocument({})).toThrow("describes no source");
    expect(() => readDocument(null)).toThrow("describes no source");
  });

  test("a setting picks the source, the first is the default, an unknown one is none", () => {
    const several = { ...KINDS, by: "source", sources: [{ name: "a" }, { name: "b" }] };
    expect(sourceOf(several, {})?.name).toBe("a");
    expect(sourceOf(several, { source: "b" })?.name).toBe("b");
    expect(sourceOf(several, { source: "c" })).toBeUndefined();
    expect(sourceOf(KINDS, { source: "c" })?.name).toBe("");
  });

  test("a query without a type asks the only thing there is", () => {
    expect(specOf(SOURCE, "alive")?.name).toBe("alive");
    expect(specOf(SOURCE, undefined)).toBeUndefined();
    expect(specOf({ ...SOURCE, queries: SOURCE.queries!.slice(0, 1) }, "")?.name).toBe("topic");
    expect(specOf(SOURCE, 7)).toBeUndefined();
  });
});
