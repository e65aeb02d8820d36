/**
 * Horizontal bars as SVG, written by hand: readable on light and on dark, without any script or
 * font.
 */

export interface Bar {
  readonly name: string;
  readonly kind: 'bare' | 'peer' | 'ours';
  /** Median, least and most; in the order of their measurement if need be. */
  readonly values: readonly [median: number, least: number, most: number];
}

export interface Panel {
  readonly title: string;
  /** Behind each number. */
  readonly unit: string;
  readonly bars: readonly Bar[];
}

const WIDTH = 820;
const MARGIN = 12;
const NAME_WIDTH = 290;
const VALUE_WIDTH = 110;
const BAR_WIDTH = WIDTH - NAME_WIDTH - VALUE_WIDTH;
const ROW = 24;
const BAR_HEIGHT = 14;
const TITLE_HEIGHT = 34;
const PANEL_GAP = 18;

const STYLE = `
  .paper { fill: #ffffff }
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 14px }
  .bare { fill: #8c959f } .peer { fill: #bf8700 } .ours { fill: #0969da }
  .spread { stroke: #1f2328; stroke-width: 1.2 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } text { fill: #e6edf3 } .spread { stroke: #e6edf3 }
    .bare { fill: #6e7681 } .peer { fill: #d29922 } .ours { fill: #4493f8 }
  }`;

/** One panel below the other, each with a scale of its own that begins at 0. */
export function picture(panels: readonly Panel[]): string {
  const parts: string[] = [];
  let y = PANEL_GAP / 2;
  for (const panel of panels) {
    parts.push(drawPanel(panel, y));
    y += TITLE_HEIGHT + panel.bars.length * ROW + PANEL_GAP;
  }
  const box = `viewBox="0 0 ${WIDTH} ${y}" width="${WIDTH}" height="${y}"`;
  const label = escapeXml(panels.map(({ title }) => title).join('; '));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" ${box} role="img" aria-label="${label}">`,
    `<style>${STYLE}\n</style>`,
    // With a ground of its own it is readable wherever it is shown.
    `<rect class="paper" x="0" y="0" width="${WIDTH}" height="${y}" rx="6"/>`,
    ...parts,
    '</svg>\n',
  ].join('\n');
}

function drawPanel({ title, unit, bars }: Panel, top: number): string {
  const most = Math.max(...bars.map(({ values }) => values[2]));
  const x = (value: number) => (NAME_WIDTH + (BAR_WIDTH * value) / most).toFixed(1);
  const lines = [`<text class="title" x="${MARGIN}" y="${top + 20}">${escapeXml(title)}</text>`];
  for (const [i, { name, kind, values }] of bars.entries()) {
    const [median, low, high] = values;
    const y = top + TITLE_HEIGHT + i * ROW;
    const middle = y + BAR_HEIGHT / 2;
    const width = Math.max(1, (BAR_WIDTH * median) / most).toFixed(1);
    const bar = `x="${NAME_WIDTH}" y="${y}" width="${width}" height="${BAR_HEIGHT}" rx="2"`;
    const baseline = y + BAR_HEIGHT - 3;
    lines.push(
      `<text x="${NAME_WIDTH - 10}" y="${baseline}" text-anchor="end">${escapeXml(name)}</text>`,
      `<rect class="${kind}" ${bar}/>`,
      `<line class="spread" x1="${x(low)}" x2="${x(high)}" y1="${middle}" y2="${middle}"/>`,
      `<text x="${Number(x(Math.max(median, high))) + 8}" y="${baseline}">${text(median)} ${escapeXml(unit)}</text>`,
    );
  }
  return lines.join('\n');
}

/** Three digits, as far as it has them. */
function text(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function escapeXml(words: string): string {
  return words.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/"/g, '&quot;');
}
