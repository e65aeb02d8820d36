import { KeyError } from '../base/error.ts';
import type { Settings } from '../engine/settings.ts';
import { flag, int, type Variable } from '../engine/sysctl.ts';
import { SPI_MIN } from '../sad/sa-checks.ts';
import type { Sad } from '../sad/sad.ts';
import type { KeySettings } from './settings.ts';

const SPI_MAX = 0xffff_ffff;
const SECONDS_MAX = 86_400;
const KEY_BITS_MAX = 2048;

/** What the variables `net.key.*` stand for. */
export interface KeyVariables {
  readonly settings: KeySettings;
  readonly sad: Sad;
  readonly engine: Settings;
}

export function keyVariables({ settings, sad, engine }: KeyVariables): Variable[] {
  return [
    ...spiVariables(settings),
    int({
      name: 'net.key.larval_lifetime',
      description: 'seconds that a reserved SPI waits for its keys',
      ...{ min: 1, max: SECONDS_MAX },
      get: () => sad.larvalSeconds,
      set: (value) => {
        sad.larvalSeconds = value;
      },
    }),
    ...acquireVariables(settings),
    flag({
      name: 'net.key.preferred_oldsa',
      aliases: ['net.key.prefered_oldsa'],
      description: 'whether the oldest SA is sent with, instead of the newest',
      get: () => engine.preferOldSa,
      set: (value) => {
        engine.preferOldSa = value;
      },
    }),
    int({
      name: 'net.key.natt_keepalive_interval',
      description: 'seconds of silence after which a NAT is sent a keep-alive; 0: never',
      ...{ min: 0, max: 3600 },
      get: () => engine.keepaliveSeconds,
      set: (value) => {
        engine.keepaliveSeconds = value;
      },
    }),
  ];
}

function spiVariables(settings: KeySettings): Variable[] {
  return [
    int({
      name: 'net.key.spi_try',
      aliases: ['net.key.spi_trycnt'],
      description: 'how many SPIs are tried for one that is free',
      ...{ min: 1, max: 1_000_000 },
      get: () => settings.spiTry,
      set: (value) => {
        settings.spiTry = value;
      },
    }),
    int({
      name: 'net.key.spi_min_value',
      aliases: ['net.key.spi_minval'],
      description: 'the smallest SPI that is given out unasked',
      ...{ min: SPI_MIN, max: SPI_MAX },
      get: () => settings.spiMin,
      set: (value) => {
        checkRange(value, settings.spiMax);
        settings.spiMin = value;
      },
    }),
    int({
      name: 'net.key.spi_max_value',
      aliases: ['net.key.spi_maxval'],
      description: 'the largest SPI that is given out unasked',
      ...{ min: SPI_MIN, max: SPI_MAX },
      get: () => settings.spiMax,
      set: (value) => {
        checkRange(settings.spiMin, value);
        settings.spiMax = value;
      },
    }),
  ];
}

function acquireVariables(settings: KeySettings): Variable[] {
  return [
    int({
      name: 'net.key.blockacq_count',
      description: 'packets after which an unanswered ACQUIRE is sent again',
      ...{ min: 0, max: 1_000_000 },
      get: () => settings.blockAcquireCount,
      set: (value) => {
        settings.blockAcquireCount = value;
      },
    }),
    int({
      name: 'net.key.blockacq_lifetime',
      description: 'seconds after which an unanswered ACQUIRE starts over',
      ...{ min: 1, max: SECONDS_MAX },
      get: () => settings.blockAcquireSeconds,
      set: (value) => {
        settings.blockAcquireSeconds = value;
      },
    }),
    int({
      name: 'net.key.esp_keymin',
      description: 'fewest key bits that an ACQUIRE proposes for ESP',
      ...{ min: 0, max: KEY_BITS_MAX },
      get: () => settings.espKeyMin,
      set: (value) => {
        settings.espKeyMin = value;
      },
    }),
    flag({
      name: 'net.key.esp_auth',
      description: 'whether an ACQUIRE proposes a MAC with ciphers that do not authenticate',
      get: () => settings.espAuth,
      set: (value) => {
        settings.espAuth = value;
      },
    }),
    int({
      name: 'net.key.ah_keymin',
      description: 'fewest key bits that an ACQUIRE proposes for AH',
      ...{ min: 0, max: KEY_BITS_MAX },
      get: () => settings.ahKeyMin,
      set: (value) => {
        settings.ahKeyMin = value;
      },
    }),
  ];
}

function checkRange(min: number, max: number): void {
  if (min <= max) return;
  throw new KeyError('EINVAL', `the smallest SPI ${min} would be above the largest, ${max}`);
}
