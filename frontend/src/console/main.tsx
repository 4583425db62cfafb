// Starts the page.

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
  // without storage the page uses the system theme
}

const url = new URL("ws", document.baseURI);
url.protocol = url.protocol.replace("http", "ws");
url.search = location.search;
const store = new Store(url.href);
createRoot(document.getElementById("root")!).render(<App store={store} />);
store.connection.open();
