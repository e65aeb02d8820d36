import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  MessageWriter,
  messagesIn,
  type NetlinkMessage,
  Slice,
} from '../../../src/drivers/linux/netlink-message.ts';
import { fromHex, toHex } from '../../../src/wire/bytes.ts';

function write(act: (writer: MessageWriter) => void, len = 256): Uint8Array {
  const bytes = new Uint8Array(len).fill(0xee);
  const writer = new MessageWriter(bytes);
  act(writer);
  return bytes.subarray(0, writer.len);
}

/** Kept apart from the buffer that they are lent from. */
function messages(bytes: Uint8Array): NetlinkMessage[] {
  return [...messagesIn(bytes)];
}

describe('the writer', () => {
  test('writes lengths without padding, and pads with zeros', () => {
    const octets = write((writer) => {
      writer.begin(24, 5, 7);
      writer.u8(1).u8(2).u16(3);
      writer.attributeText(3, 'w0');
      writer.attributeU16(4, 0x1234);
      writer.nest(2, () => writer.attributeU32(1, 0x12345678));
      writer.end();
      writer.begin(25, 0, 8);
      writer.end();
    });
    expect(toHex(octets)).toBe(
      '30000000180005000700000000000000' +
        '01020300' +
        '0700030077300000' +
        '0600040034120000' +
        '0c000280' +
        '0800010078563412' +
        '10000000190000000800000000000000',
    );
  });

  test('adds flags to the last message', () => {
    const octets = write((writer) => {
      for (const seq of [1, 2]) {
        writer.begin(24, 1, seq);
        writer.end();
      }
      writer.flag(4);
    });
    expect(messages(octets).map(({ flags }) => flags)).toEqual([1, 5]);
  });

  test('never writes past its buffer', () => {
    const long = (writer: MessageWriter) => {
      writer.begin(24, 1, 1);
      writer.attributeOctets(1, new Uint8Array(64));
    };
    expect(() => write(long, 80)).toThrow(/assertion failed/);
    expect(() => write(long, 84)).not.toThrow();
    const huge = (writer: MessageWriter) => writer.attributeOctets(1, new Uint8Array(65_532));
    expect(() => write(huge, 100_000)).toThrow(/assertion failed/);
  });
});

describe('the reader', () => {
  const body = (hex: string) => new Slice(fromHex(hex));

  test('finds messages and attributes, also such as it does not know', () => {
    const [message] = messages(
      fromHex(`24000000180002000500000009000000${'01020304'}0500630001000000${'0600048012340000'}`),
    );
    expect(message).toMatchObject({ type: 24, flags: 2, seq: 5, portId: 9 });
    const attributes = message!.body.attributes(4);
    expect(attributes.has(0x63)).toBe(true);
    expect(attributes.has(1)).toBe(false);
    // Whatever the flags above the type say.
    expect(toHex(attributes.octets(4)!)).toBe('1234');
  });

  test.each([
    ['a message shorter than its header', '0f000000180002000500000009000000'],
    ['a message longer than what came', '14000000180002000500000009000000'],
    ['a message of no length', '00000000180002000500000009000000'],
  ])('refuses %s', (_what, hex) => {
    expect(() => messages(fromHex(hex))).toThrow(/malformed/);
  });

  test.each([
    ['shorter than its header', '03000100'],
    ['of no length', '00000100'],
    ['longer than what is left', '0900010000000000'],
  ])('refuses an attribute %s', (_what, hex) => {
    expect(() => body(hex).attributes(0)).toThrow(/malformed/);
  });

  test('refuses numbers of another length than they have', () => {
    const attributes = body('0600010012340000' + '0800020078563412').attributes(0);
    expect(() => attributes.u32(1)).toThrow(/malformed/);
    expect(attributes.u32(2)).toBe(0x12345678);
    expect(attributes.u32(3)).toBeUndefined();
    expect(() => body('0102').u32(0)).toThrow(/malformed/);
    expect(() => body('0102').u16(-1)).toThrow(/malformed/);
  });

  test('reads texts with and without their zero', () => {
    const attributes = body('0700010077300000' + '0600020077300000').attributes(0);
    expect([attributes.text(1), attributes.text(2)]).toEqual(['w0', 'w0']);
  });

  test('ends on any octets, with an answer or an Error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (octets) => {
        let count = 0;
        try {
          for (const message of messagesIn(octets)) {
            count++;
            message.body.attributes(0);
          }
        } catch (error) {
          expect(String(error)).toMatch(/malformed/);
        }
        expect(count).toBeLessThanOrEqual(octets.length / 16);
      }),
    );
  });

  test('what was written is read', () => {
    const attribute = fc.tuple(fc.nat(0x3fff), fc.uint8Array({ maxLength: 20 }));
    fc.assert(
      fc.property(fc.uniqueArray(attribute, { maxLength: 8, selector: ([t]) => t }), (all) => {
        const octets = write((writer) => {
          writer.begin(1, 2, 3);
          for (const [type, value] of all) writer.attributeOctets(type, value);
          writer.end();
        }, 512);
        const [message, ...others] = messages(octets);
        expect(others).toEqual([]);
        const attributes = message!.body.attributes(0);
        for (const [type, value] of all) expect(attributes.octets(type)).toEqual(value);
      }),
    );
  });
});
