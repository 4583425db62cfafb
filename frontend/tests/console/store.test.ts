import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Store } from "../../src/console/store";

beforeEach(() => {
  vi.stubGlobal(
    "WebSocket",
    class {
      static OPEN = 1;
    },
  );
});
afterEach(() => vi.unstubAllGlobals());

const paths = (store: Store): string[] => store.panels.map((panel) => panel.path);

test("a panel opens for each channel that gets its first pushed rows", () => {
  const store = new Store("ws://localhost/ws");
  store.onPushed(["rows/a"]);
  store.onPushed(["rows/a", "rows/b"]); // after a reconnection the server names all of them
  expect(paths(store)).toEqual(["rows/a", "rows/b"]);
});

test("a panel that was closed does not open again, and one that is open not twice", () => {
  const store = new Store("ws://localhost/ws");
  store.addPanel("rows/a", null);
  store.onPushed(["rows/a", "rows/b"]);
  store.removeAllPanels();
  store.onPushed(["rows/a", "rows/b"]);
  expect(paths(store)).toEqual([]);
});

test("many pushed channels open six panels", () => {
  const store = new Store("ws://localhost/ws");
  store.onPushed(Array.from({ length: 20 }, (_, n) => `rows/${n}`));
  expect(paths(store)).toHaveLength(6);
});

test("the page follows each of the paths that it is given", () => {
  const store = new Store("ws://localhost/ws");
  const hello = { title: "", uid: "u", forms: {}, settings: {}, secrets: [], path: "walk/{1..3}", push: false };
  store.onHello(hello);
  store.onHello(hello); // after a reload
  expect(paths(store)).toEqual(["walk/1", "walk/2", "walk/3"]);
});
