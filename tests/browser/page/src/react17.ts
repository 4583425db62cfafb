/** `createRoot` of later versions for React 17, which Grafana 9.4 has. */

import ReactDOM from "react-dom";

export const createRoot = (place: Element) => ({
  render: (element: unknown) => (ReactDOM as any).render(element, place),
});
