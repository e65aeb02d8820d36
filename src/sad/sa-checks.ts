import { formatAddress, sameAddress } from '../base/address.ts';
import { KeyError } from '../base/error.ts';
import type { SaSpec } from './sa.ts';

/** SPIs 1 to 255 are reserved (RFC 4303 §2.1); 0 never goes on the wire. */
export const SPI_MIN = 0x100;
export const SPI_MAX = 0xffff_ffff;

/** `esp SPI 0x00001001 to 10.0.0.2`, for messages. */
export function describe(spec: Pick<SaSpec, 'protocol' | 'spi' | 'dst'>): string {
  const spi = spec.spi.toString(16).padStart(8, '0');
  return `${spec.protocol} SPI 0x${spi} to ${formatAddress(spec.dst)}`;
}

export function checkSpi(spi: number): void {
  if (spi < SPI_MIN || spi > SPI_MAX) {
    throw new KeyError('EINVAL', `SPI ${spi} is reserved: SPIs from ${SPI_MIN} up are for use`);
  }
}

export function checkSpec({ spi, src, dst }: SaSpec): void {
  checkSpi(spi);
  // Both stand in one IP header.
  if (src.family !== dst.family) {
    throw new KeyError(
      'EINVAL',
      `source ${formatAddress(src)} and destination ${formatAddress(dst)} are of different families`,
    );
  }
}

export function sameEnds(a: SaSpec, b: SaSpec): boolean {
  const [before, after] = [a.encapsulation, b.encapsulation];
  const samePorts = before?.srcPort === after?.srcPort && before?.dstPort === after?.dstPort;
  return samePorts && sameAddress(a.src, b.src) && sameAddress(a.dst, b.dst);
}
