/// <reference types="vite/client" />
// What the modules in src may import.
import { expect, test } from "vitest";

// From the base layer up. A module imports its own part (a folder, or a file at the top) and lower
// layers; parts of one layer do not import each other.
const LAYERS = [
  ["jsx", "types", "range", "responses", "keptArrays"],
  ["alias", "variables", "exact", "forms"],
  ["console", "datasource"],
  ["editors"],
  ["module"],
];

const SOURCES: Record<string, string> = import.meta.glob("../src/**/*.{ts,tsx}", {
  query: "?raw",
  import: "default",
  eager: true,
});

/** The imports of each module, by its path below src without the extension. */
const graph = new Map(
  Object.entries(SOURCES).map(([file, text]) => [nameOf(file), importsOf(nameOf(file), text)]),
);
const names = [...graph.keys()];

function nameOf(file: string): string {
  return file.replace("../src/", "").replace(/(\.d)?\.tsx?$/, "");
}

function importsOf(name: string, text: string): string[] {
  const paths = [...text.matchAll(/^(?:import|export)\b[^;]*?"(\.[^"]+)";/gm)].map((match) => match[1]!);
  return paths
    .filter((path) => !path.endsWith(".css"))
    .map((path) => new URL(path, `file:///${name}`).pathname.slice(1));
}

function partOf(name: string): string {
  return name.split("/")[0]!;
}

function layerOf(name: string): number {
  return LAYERS.findIndex((parts) => parts.includes(partOf(name)));
}

/** All imports between two parts that `isWrong`. */
function importsBetweenParts(isWrong: (from: string, to: string) => boolean): string[] {
  return names.flatMap((from) =>
    graph
      .get(from)!
      .filter((to) => partOf(from) !== partOf(to) && isWrong(from, to))
      .map((to) => `${from} imports ${to}`),
  );
}

test("all imports are found", () => {
  expect(names.length).toBeGreaterThan(30);
  expect(graph.get("module")).toEqual(["datasource", "editors/ConfigEditor", "editors/QueryEditor"]);
  expect([...graph.values()].flat().filter((name) => !graph.has(name))).toEqual([]);
});

test("every module has a layer", () => {
  expect(names.filter((name) => layerOf(name) < 0)).toEqual([]);
});

test("a module imports only its own part and lower layers", () => {
  expect(importsBetweenParts((from, to) => layerOf(to) >= layerOf(from))).toEqual([]);
});

test("the console imports only itself and the forms", () => {
  expect(importsBetweenParts((from, to) => partOf(from) === "console" && partOf(to) !== "forms")).toEqual([]);
});

test("no modules import each other in a circle", () => {
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (name: string, path: string[]): void => {
    if (path.includes(name)) {
      circles.push([...path.slice(path.indexOf(name)), name].join(" → "));
    } else if (!done.has(name)) {
      graph.get(name)!.forEach((to) => visit(to, [...path, name]));
      done.add(name);
    }
  };
  names.forEach((name) => visit(name, []));
  expect(circles).toEqual([]);
});

test("no two modules have the same name", () => {
  const files = names.map((name) => name.split("/").at(-1)!.toLowerCase());
  expect(files.filter((file, index) => files.indexOf(file) !== index)).toEqual([]);
});
