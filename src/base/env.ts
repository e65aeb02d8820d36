/**
 * What the core needs of the world around it. Simulation, tests and production differ only in this
 * and the links.
 */
export interface Env {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface Clock {
  /** Milliseconds that never go back; for everything that expires. */
  monotonicMs(): number;
  /** Milliseconds since 1970-01-01 UTC; only for what people and PF_KEY messages are shown. */
  wallMs(): number;
}

export interface Random {
  /** Fills with octets that nobody can predict. */
  fill(bytes: Uint8Array): void;
}

/** One line for people. Never key material. */
export type Log = (level: LogLevel, message: string) => void;

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';
