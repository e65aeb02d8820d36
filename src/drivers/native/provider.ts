import type { Algorithm } from '../../crypto/algorithms.ts';
import { nodeCrypto } from '../../crypto/node-provider.ts';
import type { CryptoProvider, TransformSpec } from '../../crypto/provider.ts';
import { checkAhSpec, checkEspSpec } from '../../crypto/spec.ts';
import type { AhTransform, EspTransform } from '../../crypto/transform.ts';
import type { NativeContext } from './contexts.ts';
import type { FastLibrary } from './fast-library.ts';
import { functionTable } from './functions.ts';
import type { IpsecMb } from './ipsec-mb.ts';
import { Keying } from './keying.ts';
import { koffiRunner } from './koffi-runner.ts';
import type { OpenSsl } from './openssl.ts';
import { type CipherPlan, cipherPlan, type MacPlan, macPlan } from './plans.ts';
import { NativeQueue, type Runner } from './queue.ts';
import { passesTest } from './self-test.ts';
import { type EspShape, NativeAh, NativeEsp } from './transforms.ts';

/** What a native provider is made of. */
export interface NativeParts {
  readonly openSsl: OpenSsl;
  /** Undefined: everything is done by OpenSSL. */
  readonly imb?: IpsecMb | undefined;
  /** Undefined: the loop over the jobs is in JavaScript. */
  readonly fast?: FastLibrary | undefined;
}

/**
 * Cryptography by libraries outside of JavaScript: contexts that are keyed once per SA, and jobs in
 * batches. What they cannot do, algorithm by algorithm, node:crypto does; it also says what there
 * is.
 */
export class NativeProvider implements CryptoProvider {
  readonly name: string;
  readonly queue: NativeQueue;
  readonly #keying: Keying;
  readonly #hasImb: boolean;
  /** Names of algorithms that intel-ipsec-mb, or all of this, is not trusted with. */
  readonly #withoutImb = new Set<string>();
  readonly #withoutNative = new Set<string>();
  readonly #tested = new Set<string>();
  readonly #faults = new Map<string, string>();

  constructor({ openSsl, imb, fast }: NativeParts) {
    this.name = imb ? `intel-ipsec-mb ${imb.version}` : `native ${openSsl.version}`;
    this.#hasImb = imb !== undefined;
    this.#keying = new Keying(openSsl, imb);
    const runner = fast ? fastRunner(fast) : koffiRunner(openSsl, imb);
    const functions = functionTable(openSsl, imb);
    const free = (context: NativeContext) => this.#keying.free(context);
    this.queue = new NativeQueue(openSsl.koffi, functions, runner, free);
  }

  supports(of: Algorithm): boolean {
    return nodeCrypto.supports(of);
  }

  /**
   * What has given a wrong answer so far, and what is used instead: one sentence each. Algorithms
   * are tested when the first SA wants them.
   */
  get faults(): readonly string[] {
    return [...this.#faults.values()];
  }

  /** Whether SAs with this algorithm are native; tests it if that has not been done. */
  isNative(of: Algorithm): boolean {
    if (!nodeCrypto.supports(of) || !hasPlan(of)) return false;
    if (!this.#tested.has(of.name)) {
      // A test runs the queue, which is not ours while jobs of others wait.
      if (this.queue.count > 0) return false;
      this.#tested.add(of.name);
      this.#test(of);
    }
    return !this.#withoutNative.has(of.name);
  }

  esp(spec: TransformSpec): EspTransform {
    const { cipher, mac } = checkEspSpec(spec);
    const cipherBy = cipher && this.#cipherPlan(cipher, spec.cipherKey.length - cipher.saltLen);
    const macBy = mac && this.#macPlan(mac);
    const isNative = (!cipher || cipherBy) && (!mac || macBy) && (cipher || mac);
    const context = isNative && this.queue.contexts.take();
    if (!context) return nodeCrypto.esp(spec);
    this.#fill(context, () => {
      if (cipherBy) {
        this.#keying.setCipher(context, cipher!, cipherBy, spec.cipherKey, this.#byImb(cipher!));
      }
      if (macBy) this.#keying.setMac(context, mac!, macBy, spec.macKey, this.#byImb(mac!));
    });
    return new NativeEsp(shapeOf(cipher, mac), this.queue, context);
  }

  ah(spec: TransformSpec): AhTransform {
    const mac = checkAhSpec(spec);
    const keyLen = spec.macKey.length - mac.saltLen;
    const cipherBy = mac.ivLen > 0 ? this.#cipherPlan(mac, keyLen) : undefined;
    const macBy = this.#macPlan(mac);
    const context = (cipherBy ?? macBy) && this.queue.contexts.take();
    if (!context) return nodeCrypto.ah(spec);
    const byImb = this.#byImb(mac);
    this.#fill(context, () => {
      if (cipherBy) this.#keying.setCipher(context, mac, cipherBy, spec.macKey, byImb);
      else this.#keying.setMac(context, mac, macBy!, spec.macKey, byImb);
    });
    return new NativeAh(this.queue, context);
  }

  #fill(context: NativeContext, fill: () => void): void {
    try {
      fill();
      context.publish();
    } catch (error) {
      this.queue.release(context);
      throw error;
    }
  }

  /** What gives a wrong answer is not used: intel-ipsec-mb first, then native code at all. */
  #test(of: Algorithm): void {
    if (passesTest(this, of)) return;
    if (this.#hasImb) {
      this.#withoutImb.add(of.name);
      this.#faults.set(of.name, `${of.name} not by intel-ipsec-mb, whose answers are wrong`);
      if (passesTest(this, of)) return;
    }
    this.#withoutNative.add(of.name);
    this.#faults.set(of.name, `${of.name} by node:crypto, since other answers are wrong`);
  }

  #byImb(of: Algorithm): boolean {
    return this.#hasImb && !this.#withoutImb.has(of.name);
  }

  #cipherPlan(of: Algorithm, keyLen: number): CipherPlan | undefined {
    return this.isNative(of) ? cipherPlan(of, keyLen) : undefined;
  }

  #macPlan(of: Algorithm): MacPlan | undefined {
    return this.isNative(of) ? macPlan(of) : undefined;
  }
}

function hasPlan(of: Algorithm): boolean {
  return macPlan(of) !== undefined || cipherPlan(of, 0) !== undefined;
}

function fastRunner({ run }: FastLibrary): Runner {
  return (queue, from, count) => {
    if (run(queue.self.address, from, count) !== 0) throw new Error('jobs are those of the queue');
  };
}

/** RFC 4303 §2.4 for the alignment; an AEAD authenticates by itself. */
function shapeOf(cipher: Algorithm | undefined, mac: Algorithm | undefined): EspShape {
  const isAead = cipher?.kind === 'aead';
  return {
    ivLen: cipher?.ivLen ?? 0,
    icvLen: isAead ? cipher.icvLen : (mac?.icvLen ?? 0),
    alignLen: Math.max(4, cipher?.blockLen ?? 1),
    iv: cipher?.iv ?? 'none',
    authenticates: isAead || mac !== undefined,
  };
}
