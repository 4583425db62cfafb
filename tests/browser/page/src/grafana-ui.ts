// The parts of @grafana/ui that a panel of @grafana/scenes draws, reduced to what they contain; the others
// are undefined, because nothing here draws them. CommonJS: a missing export of it is not an error.
const React = require("react");

const PanelChrome = ({ width = 0, height = 0, children }: any) => React.createElement("div", null, children(width, height));

module.exports = {
  PanelChrome,
  PanelContextProvider: ({ children }: any) => children,
  ErrorBoundaryAlert: ({ children }: any) => children,
  useStyles2: (styles: any, ...rest: any[]) => styles((window as any).theme, ...rest),
  createLogger: () => ({ logger: () => undefined, enable: () => undefined, isEnabled: () => false }),
  attachDebugger: () => undefined,
};
