import "uplot/dist/uPlot.min.css";
import "./console.css";
import * as React from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { Store } from "./store";

try {
  const theme = localStorage.getItem("theme");
  if (theme) {
    document.documentElement.dataset.theme = theme;
  }
} catch {
  // a page that may keep nothing looks as the system does
}

const here = new URL("ws", document.baseURI);
here.protocol = here.protocol.replace("http", "ws");
here.search = location.search;
const store = new Store(here.href);
createRoot(document.getElementById("root")!).render(<App store={store} />);
store.link.open();
