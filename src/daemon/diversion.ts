import { DiversionTable } from '../drivers/linux/diversion.ts';
import { describeSelector, namesLoopback, type Policy } from '../spd/policy.ts';

/**
 * Which packets of the machine have to go through the engine, so that every policy is kept: the
 * destinations of `out` policies and the pairs of `in` policies. What a policy lets pass is not
 * diverted, unless it lies inside of something that is. Told of every policy that comes and goes.
 */
export class PolicyDiversion {
  readonly table = new DiversionTable();
  /** Those that a host on a real network cannot keep, and nobody was told about. */
  readonly #hopeless = new Set<Policy>();

  added(policy: Policy): void {
    if (policy.type === 'none') return;
    if (namesLoopback(policy.selector)) this.#hopeless.add(policy);
    else this.#count(policy, 'add');
  }

  removed(policy: Policy): void {
    if (policy.type === 'none') return;
    if (namesLoopback(policy.selector)) this.#hopeless.delete(policy);
    else this.#count(policy, 'remove');
  }

  /**
   * Diverts for these policies too, whatever becomes of others, until the function returned is
   * called.
   */
  hold(policies: readonly Policy[]): () => void {
    const held = policies.filter(
      ({ type, selector }) => type !== 'none' && !namesLoopback(selector),
    );
    for (const policy of held) this.#count(policy, 'add');
    return () => {
      for (const policy of held) this.#count(policy, 'remove');
    };
  }

  /**
   * Sentences about policies that came since the last call and that nothing can be done for: what a
   * machine sends to itself never leaves the kernel.
   */
  takeWarnings(): string[] {
    const sentences = [...this.#hopeless].map(
      ({ id, selector }) =>
        `policy ${id} (${describeSelector(selector)}) names the loopback network`,
    );
    this.#hopeless.clear();
    return sentences;
  }

  #count({ direction, selector: { src, dst } }: Policy, how: 'add' | 'remove'): void {
    const { table } = this;
    if (direction === 'out') {
      if (how === 'add') table.addOut(dst, src);
      else table.removeOut(dst, src);
    } else if (direction === 'in') {
      if (how === 'add') table.addIn(src, dst);
      else table.removeIn(src, dst);
    }
  }
}
