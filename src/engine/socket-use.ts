import type { Sa } from '../sad/sa.ts';
import type { Flight } from './flight.ts';

/** What the last packet of a socket was protected with, in one direction. */
export class UsedLayers {
  /** By the wall clock; 0: there was no packet yet. */
  atWallMs = 0;
  packets = 0;
  /** In the order in which they were put on or taken off. */
  readonly sas: Sa[] = [];
  readonly tunnels: boolean[] = [];

  note(flight: Flight, nowWallMs: number): void {
    const { layers, layerCount } = flight;
    this.atWallMs = nowWallMs;
    this.packets++;
    this.sas.length = layerCount;
    this.tunnels.length = layerCount;
    for (let i = 0; i < layerCount; i++) {
      this.sas[i] = layers[i]!.sa;
      this.tunnels[i] = layers[i]!.tunnel;
    }
  }
}
