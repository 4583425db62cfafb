// A change notification that React components subscribe to.

import { useEffect, useReducer } from "react";

export class Signal {
  version = 0;
  private readonly listeners = new Set<() => void>();

  emit(): void {
    this.version++;
    for (const listener of [...this.listeners]) {
      listener();
    }
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** Renders the component again after each change. */
export function useSignal(signal: Signal): number {
  const [, render] = useReducer((n: number) => n + 1, 0);
  useEffect(() => signal.subscribe(() => render()), [signal]);
  return signal.version;
}
