/** The data source `-- Mixed --`: it waits until the query of each part has ended. */

import { Observable, forkJoin, map, mergeMap, toArray } from "rxjs";

export function mixed(sources: any[]): (request: any) => Observable<any> {
  return (request) => {
    const parts = sources.map((source, place) => {
      const requestId = `mixed-${place}-${request.requestId}`;
      const targets = request.targets.filter((target: any) => target.datasource.uid === source.uid);
      return (source.query({ ...request, requestId, targets }) as Observable<any>).pipe(
        map((packet) => ({ ...packet, key: `mixed-${place}-${packet.key ?? ""}`, state: "Done" })),
        toArray()
      );
    });
    return forkJoin(parts).pipe(mergeMap((answers) => answers.flat()));
  };
}
