import { KeyError } from '../base/error.ts';
import type { PolicyRequest } from '../wire/pfkey-message.ts';
import { LEVEL, MODE, saTypeOfProto } from '../wire/pfkey-table.ts';
import type { Level, Request } from './policy.ts';

/**
 * A request of an X_POLICY as policies have it; key_msg2sp of KAME. EPROTONOSUPPORT for what is
 * neither ESP nor AH, EINVAL for modes and levels that are none.
 */
export function requestOf({ proto, mode, level, reqid, src, dst }: PolicyRequest): Request {
  const satype = saTypeOfProto(proto);
  if (satype !== 'esp' && satype !== 'ah') {
    const name = satype === 'ipcomp' ? 'IPComp' : `protocol ${proto}`;
    throw new KeyError(
      'EPROTONOSUPPORT',
      `a request for ${name}: ESP (50) and AH (51) are possible`,
    );
  }
  const asked = levelOf(level);
  return {
    protocol: satype,
    mode: modeOf(mode),
    level: asked,
    // Only "unique" ties a policy to SAs, as in KAME and Linux.
    reqid: asked === 'unique' ? reqid : 0,
    ...(mode === MODE.tunnel && src && dst ? { src: src.address, dst: dst.address } : {}),
    srcPort: src?.port ?? 0,
    dstPort: dst?.port ?? 0,
  };
}

function modeOf(mode: number): Request['mode'] {
  if (mode === MODE.transport) return 'transport';
  if (mode === MODE.tunnel) return 'tunnel';
  throw new KeyError('EINVAL', `a request of mode ${mode}; 1 transport and 2 tunnel are known`);
}

function levelOf(level: number): Level {
  switch (level) {
    case LEVEL.default:
      return 'default';
    case LEVEL.use:
      return 'use';
    case LEVEL.require:
      return 'require';
    case LEVEL.unique:
      return 'unique';
    default:
      throw new KeyError('EINVAL', `a request of level ${level}; 0 to 3 are known`);
  }
}
