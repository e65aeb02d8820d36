import { KeyError } from '../base/error.ts';

/** Where something stands in a setkey file; line and column count from 1. */
export interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** An error of a setkey file: `file:line:column: sentence`. */
export class SetkeyError extends KeyError {
  readonly place: Place;
  /** The sentence without the place. */
  readonly sentence: string;

  constructor(place: Place, sentence: string) {
    super('EINVAL', `${place.file}:${place.line}:${place.column}: ${sentence}`);
    this.name = 'SetkeyError';
    this.place = place;
    this.sentence = sentence;
  }
}
