"use strict";
// PNG of 16 bits, third edition: browsers keep the upper 8 of them, in which a dim picture is black.

const PNG_SAMPLES = { 0: 1, 2: 3, 4: 2, 6: 4 };   // of a pixel by its colour type: grey, RGB, and these with opacity

// What a PNG says of itself: pixels of an edge, bits of a sample, samples of a pixel (none for a palette).
async function pngHead(file) {
  const start = await slice(file, 0, 29);
  return { width: start.getUint32(16), height: start.getUint32(20), bits: start.getUint8(24), samples: PNG_SAMPLES[start.getUint8(25)], isInterlaced: start.getUint8(28) !== 0 };
}

// The pixels of a PNG, packed as they are in it.
async function packedPixels(file) {
  const whole = await slice(file, 0, file.size), parts = [];
  for (let at = 8; at + 12 <= whole.byteLength; ) {
    const length = whole.getUint32(at), kind = whole.getUint32(at + 4);
    if (kind === 0x49444154) parts.push(new Uint8Array(whole.buffer, at + 8, length));   // IDAT
    at += 12 + length;
  }
  return new Blob(parts);
}

// Takes the filter from a line (PNG, section 9): each byte was told as its difference from those before it, `step` back and above.
function unfilter(kind, line, above, step) {
  for (let at = 0; at < line.length; at++) {
    const a = at < step ? 0 : line[at - step], b = above[at], c = at < step ? 0 : above[at - step];
    if (kind === 1) line[at] += a;
    else if (kind === 2) line[at] += b;
    else if (kind === 3) line[at] += a + b >> 1;
    else if (kind === 4) {
      const [left, up, both] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
      line[at] += left <= up && left <= both ? a : up <= both ? b : c;
    }
  }
}

// Each step-th pixel of each step-th row of a PNG of 16 bits; null where it is interlaced, has parts that are transparent, is cut off
// or overtaken. Lines are unpacked one after the other, and no more of them than the header says.
async function png16(file, step, overtaken) {
  const { width, height, samples, isInterlaced } = await pngHead(file);
  if (isInterlaced || !samples || file.size > MOST_READ) return null;
  const colours = samples > 2 ? 3 : 1, across = Math.ceil(width / step), down = Math.ceil(height / step);
  if (across * down * colours > MOST_SHOWN) return null;
  const values = new Uint16Array(across * down * colours), bytes = 2 * samples;
  const pace = new Pace(overtaken);
  let line = new Uint8Array(1 + width * bytes), above = new Uint8Array(width * bytes), filled = 0, y = 0;
  const reader = (await packedPixels(file)).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    while (y < height) {
      const { done, value } = await reader.read();
      if (done) return null;
      for (let at = 0; at < value.length && y < height; ) {
        const part = value.subarray(at, at + line.length - filled);
        line.set(part, filled);
        at += part.length;
        filled += part.length;
        if (filled < line.length) break;
        const row = line.subarray(1);
        unfilter(line[0], row, above, bytes);
        for (let x = 0; y % step === 0 && x < across; x++) {
          const from = x * step * bytes, to = (y / step * across + x) * colours;
          for (let c = 0; c < colours; c++) values[to + c] = row[from + 2 * c] << 8 | row[from + 2 * c + 1];
          if (samples > colours && (row[from + bytes - 2] & row[from + bytes - 1]) !== 0xff) return null;
        }
        above.set(row);
        filled = 0;
        y++;
      }
      if (pace.due && !await pace.rest()) return null;
    }
  } finally {
    reader.cancel().catch(() => null);
  }
  return stretched(values, across, down, pace);
}
