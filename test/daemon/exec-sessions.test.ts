import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { KeyError } from '../../src/base/error.ts';
import { ExecSessions, LINGER_MS } from '../../src/daemon/exec-sessions.ts';

function rig(refuse: (ports: readonly number[]) => boolean = () => false) {
  const changes: (readonly number[])[] = [];
  const warnings: string[] = [];
  let next = 0;
  const env = {
    clock: { monotonicMs: () => 0, wallMs: () => 0 },
    random: { fill: (octets: Uint8Array) => void octets.fill(++next) },
    log: (_: unknown, text: string) => void warnings.push(text),
  };
  const sessions = new ExecSessions(env, (ports) => {
    changes.push(ports);
    if (refuse(ports)) throw new KeyError('EIO', 'no');
  });
  return { sessions, changes, warnings };
}

describe('sessions of exec', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  test('are found by their token, and by no other', () => {
    const { sessions } = rig();
    const one = sessions.open();
    const two = sessions.open();
    expect(sessions.find(one.token.slice())).toBe(one);
    expect(sessions.find(two.token.slice())).toBe(two);
    const other = two.token.slice();
    other[31]!++;
    expect(sessions.find(other)).toBeUndefined();
  });

  test('last as long as the command or a connection, and a moment more', () => {
    const { sessions } = rig();
    const session = sessions.open();
    const token = session.token.slice();
    vi.advanceTimersByTime(LINGER_MS * 10);
    sessions.connected(session);
    sessions.end(session);
    vi.advanceTimersByTime(LINGER_MS * 10);
    expect(sessions.find(token)).toBe(session);
    sessions.disconnected(session);
    vi.advanceTimersByTime(LINGER_MS - 1);
    // A program in the background opens another one.
    sessions.connected(session);
    vi.advanceTimersByTime(LINGER_MS);
    expect(sessions.find(token)).toBe(session);
    sessions.disconnected(session);
    vi.advanceTimersByTime(LINGER_MS);
    expect(sessions.find(token)).toBeUndefined();
    expect(session.token).toEqual(new Uint8Array(32));
  });

  test('share their ports until they end', () => {
    const { sessions, changes } = rig();
    const one = sessions.open();
    const two = sessions.open();
    sessions.addPort(one, 4500);
    sessions.addPort(one, 4500);
    sessions.addPort(two, 4500);
    sessions.addPort(two, 4501);
    sessions.end(two);
    vi.advanceTimersByTime(LINGER_MS);
    sessions.close();
    expect(changes).toEqual([[4500], [4500], [4500, 4501], [4500], []]);
  });

  test('a port that is refused is not theirs', () => {
    const { sessions, changes, warnings } = rig((ports) => ports.includes(4501));
    const session = sessions.open();
    sessions.addPort(session, 4500);
    expect(() => sessions.addPort(session, 4501)).toThrow('no');
    expect(() => sessions.addPort(session, 0)).toThrow(/0 is no UDP port/);
    sessions.addPort(session, 4502);
    expect(changes.at(-1)).toEqual([4500, 4502]);
    for (let port = 5000; port < 5062; port++) sessions.addPort(session, port);
    expect(() => sessions.addPort(session, 6000)).toThrow(/64 ports/);
    expect(warnings).toEqual([]);
  });

  test('are not without number', () => {
    const { sessions } = rig();
    for (let i = 0; i < 64; i++) sessions.open();
    expect(() => sessions.open()).toThrow(KeyError);
  });

  test('a machine that does not follow at the end is a line in the log', () => {
    const { sessions, warnings } = rig((ports) => ports.length === 0);
    sessions.addPort(sessions.open(), 4500);
    sessions.close();
    expect(warnings).toHaveLength(1);
  });
});
