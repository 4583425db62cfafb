/** React 17, as Grafana 9.4 has it, behind the way in which later ones draw. */

import ReactDOM from "react-dom";

export const createRoot = (place: Element) => ({
  render: (element: unknown) => (ReactDOM as any).render(element, place),
});
