// What JSX becomes calls of: a short name in the bundle, where React.createElement would stand at each
// element. 9.4 gives plugins no react/jsx-runtime.
import * as React from "react";

export const h = React.createElement;
export const Fragment = React.Fragment;
