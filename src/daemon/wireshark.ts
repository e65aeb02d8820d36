import { formatAddress } from '../base/address.ts';
import {
  type Algorithm,
  authenticationById,
  encryptionById,
  PFKEY_ALG_NONE,
} from '../crypto/algorithms.ts';
import type { Sa } from '../sad/sa.ts';
import { toHex } from '../wire/bytes.ts';

/**
 * The keys of ESP SAs as Wireshark reads them: its file `esp_sa` (in the folder of its profile), a
 * line of eight quoted fields per SA
 *
 *     protocol, source, destination, SPI, encryption, its key, authentication, its key
 *
 * with the names of the algorithm table. **It holds the keys in the clear**: for people who asked
 * for them. An SA whose algorithms Wireshark does not know is a comment that says so; one without
 * keys (larval, dead) and one for AH, which needs none to be read, are left out. Wireshark verifies
 * no ICV under extended sequence numbers, since it does not know the high half.
 */
export function wiresharkTable(sas: Iterable<Sa>): string {
  let table = '';
  for (const sa of sas) {
    if (sa.spec.protocol === 'esp' && sa.isUsable) table += `${line(sa)}\n`;
  }
  return table;
}

function line(sa: Sa): string {
  const { src, dst, spi, keys } = sa.spec;
  const hexSpi = `0x${spi.toString(16).padStart(8, '0')}`;
  const cipher = encryptionById(keys.encrypt);
  const mac = authenticationById(keys.auth);
  const encryption = nameOf(cipher, keys.encrypt);
  const authentication = nameOf(mac, keys.auth);
  if (encryption === undefined || authentication === undefined) {
    const unknown = encryption === undefined ? cipher?.name : mac?.name;
    return `# ${hexSpi} to ${formatAddress(dst)}: Wireshark does not know ${unknown}`;
  }
  const fields = [
    `IPv${dst.family}`,
    formatAddress(src),
    formatAddress(dst),
    hexSpi,
    encryption,
    keyText(encryption, keys.encryptKey),
    authentication,
    keyText(authentication, keys.authKey),
  ];
  return fields.map((field) => `"${field}"`).join(',');
}

/** Wireshark's name; of nothing it is `NULL`, undefined if it has none. */
function nameOf(algorithm: Algorithm | undefined, id: number): string | undefined {
  return id === PFKEY_ALG_NONE ? NONE : algorithm?.wireshark;
}

const NONE = 'NULL';

/** `null` may have been given a key, which nobody uses. */
function keyText(name: string, key: Uint8Array): string {
  return name === NONE || key.length === 0 ? '' : `0x${toHex(key)}`;
}
