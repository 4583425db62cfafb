// The page's WebSocket: requests with answers, followed channels, and messages to every page.

import type { Answer, Hello, LogLine, Message, Packet, PageRequest, Reload, State, User } from "./protocol";

/** Gets what happens on a followed channel. */
export interface ChannelListener {
  onPackets(packets: Packet[]): void;
  onEnd(): void;
}

/** Gets the messages that the server sends to every page. */
export interface ConnectionListener {
  onConnected(connected: boolean): void;
  onHello(hello: Hello): void;
  onState(state: State): void;
  onLog(lines: LogLine[]): void;
  onReload(reload: Reload): void;
  onPushed(paths: string[]): void;
}

const RECONNECT_MS = 1000;

/** Reconnects by itself. Follow channels again after each `onConnected(true)`. */
export class Connection {
  private socket: WebSocket | null = null;
  private nextId = 1;
  private readonly pending = new Map<number, (answer: Answer) => void>();
  private readonly channels = new Map<number, ChannelListener>();

  constructor(
    private readonly url: string,
    private readonly listener: ConnectionListener,
  ) {}

  open(): void {
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.onopen = () => this.listener.onConnected(true);
    socket.onmessage = (event) => this.receive(JSON.parse(event.data as string) as Message[]);
    socket.onclose = () => {
      this.socket = null;
      for (const resolve of this.pending.values()) {
        resolve({ error: "the connection to the console was lost" });
      }
      this.pending.clear();
      this.channels.clear();
      this.listener.onConnected(false);
      setTimeout(() => this.open(), RECONNECT_MS);
    };
  }

  /** Never rejects: failures are in the answer's `error`. */
  request(request: PageRequest, id = this.nextId++): Promise<Answer> {
    return new Promise((resolve) => {
      if (this.socket === null || this.socket.readyState !== WebSocket.OPEN) {
        resolve({ error: "not connected to the console" });
        return;
      }
      this.pending.set(id, resolve);
      this.socket.send(JSON.stringify({ ...request, id }));
    });
  }

  /** Follows a path; `leave` takes the id that is returned. */
  async follow(
    path: string,
    user: User | null,
    delay: number,
    listener: ChannelListener,
  ): Promise<{ id: number; error?: string }> {
    const id = this.nextId++;
    this.channels.set(id, listener);
    const answer = await this.request({ type: "follow", path, user, delay }, id);
    if (answer.error) {
      this.channels.delete(id);
    }
    return { id, error: answer.error };
  }

  leave(id: number): void {
    this.channels.delete(id);
    if (this.socket?.readyState === WebSocket.OPEN) {
      this.socket.send(JSON.stringify({ type: "leave", id }));
    }
  }

  private receive(messages: Message[]): void {
    for (const message of messages) {
      if (message.packets !== undefined) {
        this.channels.get(message.id!)?.onPackets(message.packets);
      } else if (message.ended) {
        this.channels.get(message.id!)?.onEnd();
      } else if (message.id !== undefined) {
        this.pending.get(message.id)?.(message as Answer);
        this.pending.delete(message.id);
      } else if (message.state) {
        this.listener.onState(message.state);
      } else if (message.log) {
        this.listener.onLog(message.log);
      } else if (message.hello) {
        this.listener.onHello(message.hello);
      } else if (message.reload) {
        this.listener.onReload(message.reload);
      } else if (message.pushed) {
        this.listener.onPushed(message.pushed);
      }
    }
  }
}
