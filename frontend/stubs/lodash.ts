// What the frontend uses of lodash.

export function invoke(object: any, method: string, ...values: unknown[]): any {
  return object[method](...values);
}

export function set(object: any, name: string, value: unknown): any {
  object[name] = value;
  return object;
}

const timesOf = (values: any[] = []): any[] => values.filter((value) => value !== null && value === value);

/** undefined if there is none. */
export const min = (values: any[]): any => timesOf(values).sort((a, b) => a - b)[0];
export const max = (values: any[]): any => timesOf(values).sort((a, b) => b - a)[0];
