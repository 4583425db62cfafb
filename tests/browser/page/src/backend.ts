/** Grafana's backendSrv, as far as DataSourceWithBackend uses it, with fetch. */

import { Observable } from "rxjs";

interface Request {
  url: string;
  method?: string;
  data?: unknown;
  params?: Record<string, unknown>;
  headers?: Record<string, string>;
  requestId?: string;
}

const pending = new Map<string, () => void>();

/** A new request cancels an older one with the same id, as in Grafana's backendSrv. */
function fetchFrom(options: Request): Observable<any> {
  return new Observable((subscriber) => {
    const abort = new AbortController();
    const { requestId } = options;
    if (requestId !== undefined) {
      pending.get(requestId)?.();
      pending.set(requestId, () => {
        abort.abort();
        subscriber.error({ cancelled: true, status: -1, statusText: "Request was aborted", data: null, config: options });
      });
    }
    void answer(options, abort.signal).then(
      (found) => {
        if (found.ok) {
          subscriber.next(found);
          subscriber.complete();
        } else {
          subscriber.error(found);
        }
      },
      (error) =>
        subscriber.error(Object.assign(error, { data: { message: "Unexpected error" }, config: options }))
    );
    return () => abort.abort();
  });
}

async function answer(options: Request, signal: AbortSignal): Promise<any> {
  const { url, method = "GET", data, params, headers } = options;
  const query = params ? `?${new URLSearchParams(params as Record<string, string>)}` : "";
  const response = await fetch(`${url}${query}`, {
    method,
    signal,
    headers: { "Content-Type": "application/json", ...headers },
    body: data === undefined ? undefined : JSON.stringify(data),
  });
  const text = await response.text();
  let body: unknown = text;
  try {
    body = JSON.parse(text);
  } catch {
    // not JSON
  }
  const { status, statusText, ok } = response;
  return { status, statusText, ok, data: body, url, config: options };
}

const unwrapped = (options: Request) =>
  new Promise((resolve, reject) => fetchFrom(options).subscribe({ next: (found) => resolve(found.data), error: reject }));

export const backendSrv: any = {
  fetch: fetchFrom,
  get: (url: string, params?: Record<string, unknown>) => unwrapped({ url, params }),
  post: (url: string, data?: unknown) => unwrapped({ url, method: "POST", data }),
  put: (url: string, data?: unknown) => unwrapped({ url, method: "PUT", data }),
};
