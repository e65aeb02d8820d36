import type { Instruction } from './bpf.ts';
import { type NetlinkRequest, NLM_F_CREATE, NLM_F_EXCL } from './netlink.ts';
import type { MessageWriter, NetlinkMessage } from './netlink-message.ts';

/**
 * Queueing disciplines and filters (<linux/rtnetlink.h>, <linux/pkt_cls.h>):
 *
 *     tcmsg        0 family  4 index  8 handle  12 parent  16 info: preference, then protocol
 *     tc_mirred    0 index  4 capab  8 action  12 refcnt  16 bindcnt  20 direction  24 index
 *     sock_filter  0 code  2 jt  3 jf  4 k
 */
const TCMSG_LEN = 20;
const RTM_NEWQDISC = 36;
export const RTM_DELQDISC = 37;
const RTM_GETQDISC = 38;
const RTM_NEWTFILTER = 44;
export const RTM_DELTFILTER = 45;
const RTM_GETTFILTER = 46;
const TCA_KIND = 1;
const TCA_OPTIONS = 2;
const TCA_BPF_ACT = 1;
const TCA_BPF_OPS_LEN = 4;
const TCA_BPF_OPS = 5;
const TCA_ACT_KIND = 1;
const TCA_ACT_OPTIONS = 2;
const TCA_MIRRED_PARMS = 2;
const TCA_EGRESS_REDIR = 1;
/** The packet is ours: nothing behind the filter sees it. */
const TC_ACT_STOLEN = 4;
/** Where an ingress discipline hangs, and where filters hang on it or on `clsact`. */
const TC_H_INGRESS = 0xffff_fff1;
const INGRESS_FILTERS = 0xffff_fff2;
const INGRESS_HANDLE = 0xffff_0000;
/** ETH_P_ALL in network order. */
const EVERY_PROTOCOL = 0x0300;
const FILTER_HANDLE = 1;

export interface Qdisc {
  readonly device: number;
  readonly kind: string;
}

export interface Filter {
  readonly device: number;
  readonly pref: number;
  readonly kind: string;
  /** Whether it is a classic BPF program: others that use BPF here load the other kind. */
  readonly isClassicBpf: boolean;
}

export function listQdiscs(): NetlinkRequest {
  return {
    what: () => 'list queueing disciplines',
    type: RTM_GETQDISC,
    flags: 0,
    write: (writer) => writeHeader(writer, 0, 0, 0, 0),
  };
}

/** Undefined for another message. */
export function decodeQdisc({ type, body }: NetlinkMessage): Qdisc | undefined {
  if (type !== RTM_NEWQDISC && type !== RTM_DELQDISC) return undefined;
  const kind = body.attributes(TCMSG_LEN).text(TCA_KIND);
  return kind === undefined ? undefined : { device: body.i32(4), kind };
}

export function addIngress(device: number): NetlinkRequest {
  return ingress('add', device, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL);
}

export function deleteIngress(device: number): NetlinkRequest {
  return ingress('delete', device, RTM_DELQDISC, 0);
}

export function listFilters(device: number): NetlinkRequest {
  return {
    what: () => `list filters of device ${device}`,
    type: RTM_GETTFILTER,
    flags: 0,
    write: (writer) => writeHeader(writer, device, 0, INGRESS_FILTERS, 0),
  };
}

/** Undefined for another message. One filter can come as several, by preference and then whole. */
export function decodeFilter({ type, body }: NetlinkMessage): Filter | undefined {
  if (type !== RTM_NEWTFILTER && type !== RTM_DELTFILTER) return undefined;
  const attributes = body.attributes(TCMSG_LEN);
  return {
    device: body.i32(4),
    pref: body.u32(16) >>> 16,
    kind: attributes.text(TCA_KIND) ?? '',
    isClassicBpf: attributes.nested(TCA_OPTIONS)?.has(TCA_BPF_OPS) === true,
  };
}

/** Redirects what the program says; takes the place of our filter in one step, if there is one. */
export function replaceFilter(
  { index: device, name }: { readonly index: number; readonly name: string },
  pref: number,
  program: readonly Instruction[],
  target: number,
): NetlinkRequest {
  return {
    what: () => `set the filter of ${name}`,
    type: RTM_NEWTFILTER,
    flags: NLM_F_CREATE,
    write: (writer) => {
      writeHeader(writer, device, FILTER_HANDLE, INGRESS_FILTERS, (pref << 16) | EVERY_PROTOCOL);
      writer.attributeText(TCA_KIND, 'bpf');
      writer.nest(TCA_OPTIONS, () => {
        writer.nest(TCA_BPF_ACT, () => writer.nest(1, () => writeRedirect(writer, target)));
        writer.attributeU16(TCA_BPF_OPS_LEN, program.length);
        writer.attribute(TCA_BPF_OPS, () => {
          for (const { code, jt, jf, k } of program) writer.u16(code).u8(jt).u8(jf).u32(k);
        });
      });
    },
  };
}

/** Deletes all filters of a preference. */
export function deleteFilter(device: number, pref: number): NetlinkRequest {
  return {
    what: () => `delete the filter of device ${device}`,
    type: RTM_DELTFILTER,
    flags: 0,
    write: (writer) => writeHeader(writer, device, 0, INGRESS_FILTERS, pref << 16),
  };
}

function writeRedirect(writer: MessageWriter, target: number): void {
  writer.attributeText(TCA_ACT_KIND, 'mirred');
  writer.nest(TCA_ACT_OPTIONS, () => {
    writer.attribute(TCA_MIRRED_PARMS, () => {
      writer.u32(0).u32(0).u32(TC_ACT_STOLEN).u32(0).u32(0);
      writer.u32(TCA_EGRESS_REDIR).u32(target);
    });
  });
}

function ingress(verb: string, device: number, type: number, flags: number): NetlinkRequest {
  return {
    what: () => `${verb} the ingress discipline of device ${device}`,
    type,
    flags,
    write: (writer) => {
      writeHeader(writer, device, INGRESS_HANDLE, TC_H_INGRESS, 0);
      writer.attributeText(TCA_KIND, 'ingress');
    },
  };
}

function writeHeader(
  writer: MessageWriter,
  device: number,
  handle: number,
  parent: number,
  info: number,
): void {
  writer.u32(0).u32(device).u32(handle).u32(parent).u32(info);
}
