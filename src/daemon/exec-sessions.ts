import { timingSafeEqual } from 'node:crypto';
import type { Env } from '../base/env.ts';
import { KeyError } from '../base/error.ts';
import { TOKEN_LEN } from './exec-greeting.ts';

const SESSION_MAX = 64;
/** Of all sessions; a daemon has one or two. */
const PORT_MAX = 64;
/** A program that puts itself in the background may connect a moment after its parent has ended. */
export const LINGER_MS = 5000;

/**
 * One `testudo exec`: a program and its children, who show its token. It lasts until the command
 * has ended, the last connection is closed, and `LINGER_MS` have passed since: a program may put
 * itself in the background.
 */
export interface ExecSession {
  readonly token: Uint8Array;
  /** UDP ports of the program that get ESP in UDP. */
  readonly ports: Set<number>;
  connections: number;
  isRunning: boolean;
  lingering: NodeJS.Timeout | undefined;
}

/** All sessions of a host. */
export class ExecSessions {
  readonly #env: Env;
  readonly #sessions = new Set<ExecSession>();
  readonly #portsChanged: (ports: readonly number[]) => void;

  /** `portsChanged` gets the ports of all sessions; it may refuse by throwing. */
  constructor(env: Env, portsChanged: (ports: readonly number[]) => void) {
    this.#env = env;
    this.#portsChanged = portsChanged;
  }

  /** Throws KeyError EBUSY when there are too many. */
  open(): ExecSession {
    if (this.#sessions.size >= SESSION_MAX) {
      throw new KeyError('EBUSY', `${SESSION_MAX} programs run under exec already`);
    }
    const token = new Uint8Array(TOKEN_LEN);
    this.#env.random.fill(token);
    const session: ExecSession = {
      token,
      ports: new Set(),
      connections: 0,
      isRunning: true,
      lingering: undefined,
    };
    this.#sessions.add(session);
    return session;
  }

  /** The session with this token. Takes as long for a wrong one, wherever it is wrong. */
  find(token: Uint8Array): ExecSession | undefined {
    let found: ExecSession | undefined;
    for (const session of this.#sessions) {
      if (timingSafeEqual(session.token, token)) found = session;
    }
    return found;
  }

  /** Throws what `portsChanged` throws, KeyError EINVAL and ENOBUFS; then nothing is changed. */
  addPort(session: ExecSession, port: number): void {
    if (port < 1 || port > 65_535) throw new KeyError('EINVAL', `${port} is no UDP port`);
    if (session.ports.has(port)) return;
    if (this.#ports().length >= PORT_MAX) {
      throw new KeyError('ENOBUFS', `programs have ${PORT_MAX} ports for ESP in UDP already`);
    }
    session.ports.add(port);
    try {
      this.#portsChanged(this.#ports());
    } catch (error) {
      session.ports.delete(port);
      throw error;
    }
  }

  /** The command has ended. */
  end(session: ExecSession): void {
    session.isRunning = false;
    this.#closeSoon(session);
  }

  /** A connection was made with the session's token. */
  connected(session: ExecSession): void {
    session.connections++;
    clearTimeout(session.lingering);
  }

  disconnected(session: ExecSession): void {
    session.connections--;
    this.#closeSoon(session);
  }

  /** Ends all of them at once: the host ends. */
  close(): void {
    for (const session of this.#sessions) this.#close(session);
  }

  #closeSoon(session: ExecSession): void {
    if (session.isRunning || session.connections > 0) return;
    clearTimeout(session.lingering);
    session.lingering = setTimeout(() => this.#close(session), LINGER_MS);
    // A host that ends does not wait for it.
    session.lingering.unref();
  }

  #close(session: ExecSession): void {
    clearTimeout(session.lingering);
    if (!this.#sessions.delete(session)) return;
    session.token.fill(0);
    if (session.ports.size === 0) return;
    try {
      this.#portsChanged(this.#ports());
    } catch (error) {
      // Then the ports stay ours, which costs a program that binds them its ESP in UDP.
      this.#env.log('warn', `exec: the ports of a program that has ended: ${String(error)}`);
    }
  }

  #ports(): number[] {
    return [...new Set([...this.#sessions].flatMap(({ ports }) => [...ports]))];
  }
}
