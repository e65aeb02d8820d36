/**
 * The library: the parts of a host without the process around them. `Daemon` is a whole host that
 * waits for links; `Host` is the packet engine alone.
 */
export {
  type Address,
  address,
  formatAddress,
  type Prefix,
  parseAddress,
  prefix,
} from './base/address.ts';
export { DROPS, type DropReason } from './base/drop.ts';
export type { Clock, Env, Log, Random } from './base/env.ts';
export { KeyError } from './base/error.ts';
export { ALGORITHMS, type Algorithm } from './crypto/algorithms.ts';
export { nodeCrypto } from './crypto/node-provider.ts';
export type { HostAttachment } from './daemon/attach.ts';
export { attachUser } from './daemon/attach-user.ts';
export { applyConfig, type Config, ConfigError, parseConfig, readConfig } from './daemon/config.ts';
export { Daemon, type DaemonOptions } from './daemon/daemon.ts';
export { systemResolver } from './daemon/resolver.ts';
export { openSequenceFile } from './daemon/sequence-file.ts';
export { systemEnv } from './daemon/system-env.ts';
export { faultLink } from './drivers/fault.ts';
export type { Link } from './drivers/link.ts';
export { memoryPair } from './drivers/memory.ts';
export { pcapLink } from './drivers/pcap-link.ts';
export { traceLink } from './drivers/trace.ts';
export { Host, type HostOptions } from './engine/host.ts';
export { defaultSettings, type Settings } from './engine/settings.ts';
export { readSocketOption, writeSocketOption } from './engine/socket-option.ts';
export { type SocketEnds, type SocketHandle, SocketPolicies } from './engine/socket-policies.ts';
export type { SocketRule } from './engine/socket-rule.ts';
export type { Protection } from './engine/socket-status.ts';
export { Inet } from './inet/inet.ts';
export { KeyEngine } from './key/engine.ts';
export { Sa, type SaSpec, saSpec } from './sad/sa.ts';
export { Sad } from './sad/sad.ts';
export { memorySequences, type SequenceStore } from './sad/sequence.ts';
export type { Policy, PolicySpec, Request, Selector } from './spd/policy.ts';
export {
  formatPolicy,
  parsePolicy,
  policyFromBytes,
  policyToBytes,
} from './spd/set-policy.ts';
export { Spd } from './spd/spd.ts';
export { dissect } from './wire/dissect.ts';
export { Packet, PacketArena, type PacketSink, packetFrom } from './wire/packet.ts';
