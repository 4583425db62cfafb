// The page's end of the WebSocket: questions with answers, feeds of packets, and the news.

export interface User {
  login: string;
  name: string;
  email: string;
  role: string;
}

export interface Packet {
  schema?: RawSchema;
  data?: RawData;
  cursor?: { epoch: string; prev: number; last: number };
  status?: { severity: string; text: string } | null;
}

export interface RawSchema {
  name?: string;
  meta?: { channel?: string; notices?: { severity: string; text: string }[] };
  fields: RawField[];
}

export interface RawField {
  name: string;
  type?: string;
  labels?: Record<string, string>;
  config?: { unit?: string; displayName?: string; displayNameFromDS?: string; decimals?: number; min?: number; max?: number };
}

export interface RawData {
  values: unknown[][];
  entities?: ({ NaN?: number[]; Inf?: number[]; NegInf?: number[] } | null)[];
}

export interface Answer {
  error?: string;
  status?: number | string;
  ok?: boolean;
  message?: string;
  frames?: Packet[];
  query?: Record<string, unknown>;
  data?: string;
}

// Path, state, readers, packets, rows, bytes, dropped rows, starts, errors, cursor, last error.
export type ChannelLine = [string, string, number, number, number, number, number, number, number, string, string];

export interface State {
  channels: ChannelLine[];
  totals: Record<string, number>;
  pages: number;
  page_dropped: number;
}

export interface LogLine {
  "@level": string;
  "@message": string;
  "@timestamp": string;
  "@module": string;
  path?: string;
  error?: string;
  [key: string]: unknown;
}

export interface Hello {
  title: string;
  uid: string;
  forms: unknown;
  settings: Record<string, unknown>;
  secrets: string[];
  path: string;
}

export interface Reload {
  count: number;
  seconds: number;
  error: string;
}

export interface Feed {
  packets(packets: Packet[]): void;
  ended(): void;
}

export interface News {
  connected(yes: boolean): void;
  hello(hello: Hello): void;
  state(state: State): void;
  log(lines: LogLine[]): void;
  reload(reload: Reload): void;
}

const AGAIN_MS = 1000;

interface Message {
  id?: number;
  packets?: Packet[];
  ended?: boolean;
  hello?: Hello;
  state?: State;
  log?: LogLine[];
  reload?: Reload;
}

export class Link {
  private socket: WebSocket | null = null;
  private next = 1;
  private readonly waiting = new Map<number, (answer: Answer) => void>();
  private readonly feeds = new Map<number, Feed>();

  constructor(private readonly url: string, private readonly news: News) {}

  open(): void {
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.onopen = () => this.news.connected(true);
    socket.onmessage = (event) => this.receive(JSON.parse(event.data as string) as Message[]);
    socket.onclose = () => {
      this.socket = null;
      for (const answer of this.waiting.values()) {
        answer({ error: "the connection to the console was lost" });
      }
      this.waiting.clear();
      this.feeds.clear();
      this.news.connected(false);
      setTimeout(() => this.open(), AGAIN_MS);
    };
  }

  ask(what: Record<string, unknown>, id = this.next++): Promise<Answer> {
    return new Promise((done) => {
      if (this.socket === null || this.socket.readyState !== WebSocket.OPEN) {
        done({ error: "there is no connection to the console" });
        return;
      }
      this.waiting.set(id, done);
      this.socket.send(JSON.stringify({ ...what, id }));
    });
  }

  // Follow a path; `leave` with the id that comes back.
  async follow(path: string, user: User | null, delay: number, feed: Feed): Promise<{ id: number; error?: string }> {
    const id = this.next++;
    this.feeds.set(id, feed);
    const answer = await this.ask({ do: "follow", path, user, delay }, id);
    if (answer.error) {
      this.feeds.delete(id);
    }
    return { id, error: answer.error };
  }

  leave(id: number): void {
    this.feeds.delete(id);
    if (this.socket?.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify({ do: "leave", id }));
    }
  }

  private receive(messages: Message[]): void {
    for (const message of messages) {
      if (message.packets !== undefined) {
        this.feeds.get(message.id!)?.packets(message.packets);
      } else if (message.ended) {
        this.feeds.get(message.id!)?.ended();
      } else if (message.id !== undefined) {
        this.waiting.get(message.id)?.(message as Answer);
        this.waiting.delete(message.id);
      } else if (message.state) {
        this.news.state(message.state);
      } else if (message.log) {
        this.news.log(message.log);
      } else if (message.hello) {
        this.news.hello(message.hello);
      } else if (message.reload) {
        this.news.reload(message.reload);
      }
    }
  }
}
