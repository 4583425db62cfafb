/**
 * Grafana's frontend sandbox: a module runs in another realm, in near-membrane. Each access to an
 * object of the other realm passes a proxy; changes that the module makes to objects of this realm are
 * not seen here. Only `DataSourceApi` objects are shared, as in Grafana.
 */

import * as data from "@grafana/data";
import createVirtualEnvironment from "@locker/near-membrane-dom";

const LIVE = Symbol.for("@@SANDBOX_LIVE_VALUE");

export async function loadInSandbox(url: string, host: Record<string, any>): Promise<any> {
  const code = await (await fetch(url)).text();
  return new Promise((resolve) => {
    const define = (names: string[], factory: (...modules: any[]) => any) =>
      resolve(factory(...names.map((name) => (host[name].__useDefault ? host[name].default : host[name]))));
    const environment = createVirtualEnvironment(window, {
      distortionCallback: (value: any) => {
        if (value instanceof (data as any).DataSourceApi && !Object.hasOwn(value, LIVE)) {
          Reflect.defineProperty(value, LIVE, {});
        }
        return value;
      },
      liveTargetCallback: (value: any) => Object.hasOwn(value, LIVE),
      endowments: Object.getOwnPropertyDescriptors({ define }),
    } as any);
    environment.evaluate(code);
  });
}
