"use strict";
// What a picture looks like, as far as browsers show it.

const MOST_SHOWN = 1 << 24;  // pixels that are drawn: with more each step of Opacity would take long
const LONGEST_SHOWN = 32767; // pixels of an edge: the longest that every browser draws
const MOST_DECODED = 1 << 27;   // pixels that the browser may decode, four bytes each, to draw fewer
const MOST_AT_ONCE_MS = 50;     // of work, after which the page answers
const BLOCK = 1 << 18;          // pixels between two looks at the clock

// Lets the page answer amid a loop that takes long: where it is `due`, `rest`; false once the work is overtaken.
class Pace {
  constructor(overtaken) {
    Object.assign(this, { overtaken, rested: performance.now() });
  }

  get due() {
    return performance.now() - this.rested > MOST_AT_ONCE_MS;
  }

  async rest() {
    await new Promise((resume) => setTimeout(resume));
    this.rested = performance.now();
    return !this.overtaken();
  }
}

// What of an image is drawn: each step-th pixel of each step-th row, as few as browsers take.
function reduced([height, width]) {
  for (let step = Math.ceil(Math.max(height, width) / LONGEST_SHOWN); ; step++) {
    const [across, down] = [Math.ceil(width / step), Math.ceil(height / step)];
    if (across * down <= MOST_SHOWN) return { step, across, down };
  }
}

let last = Promise.resolve();   // the decoding that comes last

// What is drawn of a plane, and what there is to say of that, after all that was asked for before: one picture at a time fills
// memory and processor enough. Nothing where it is not wanted any more when its turn comes.
function pictureInTurn(file, answer, plane, wanted, overtaken) {
  const mine = last.then(() => wanted() ? picture(file, answer, plane, overtaken) : null);
  last = mine.catch(() => null);
  return mine;
}

async function picture(file, answer, plane, overtaken) {
  const { bitmap, why } = await decoded(file, answer, plane, overtaken);
  try {
    return { isShown: Boolean(bitmap), why, layers: await layersOf(answer, plane, bitmap, overtaken) };
  } finally {
    bitmap?.close();   // holds much memory
  }
}

// The picture to lie under the objects, or why there is none.
async function decoded(file, answer, plane, overtaken) {
  const unknown = { why: "this browser does not show such a file" }, tooLarge = { why: "the picture is too large to be shown here" };
  const signature = await slice(file, 0, 2).then((start) => start.getUint16(0)).catch(() => 0), isTiff = TIFFS.includes(signature);
  if (!isTiff && ![PNG, JPEG, BMP].includes(signature)) return unknown;
  const noted = (words) => answer.receipt.input.notes.some((note) => words.test(note));
  if (noted(/orientation/i)) return { why: "browsers turn such a picture by the orientation in it and the service does not" };
  const [height, width] = answer.size, { across, down } = reduced(answer.size);
  if (height * width > MOST_DECODED) return tooLarge;
  const hasTransparency = noted(/alpha channel|transparency/), isDeep = signature === PNG && (await pngHead(file)).bits === 16;
  if (isDeep && !noted(/transparency/)) {
    const bitmap = await png16(file, reduced(answer.size).step, overtaken).catch(() => null);
    if (bitmap) return { bitmap };
  }
  let bitmap = isTiff ? await tiffPlane(file, plane, answer, overtaken).catch(() => null) : null;
  // a browser that knows TIFF shows the first page, whichever is asked for
  if (!bitmap && !(isTiff && (answer.planes || answer.receipt.output.channel || file.size > MOST_READ))) {
    bitmap = await createImageBitmap(file, { resizeWidth: across, resizeHeight: down, colorSpaceConversion: "none" }).catch(() => null);
    if (bitmap && hasTransparency && !opaque(bitmap)) return { why: "parts of the picture are transparent, which the net does not see" };
  }
  if (bitmap) return isDeep ? { bitmap, why: "the picture is shown by the upper 8 of its 16 bits" } : { bitmap };
  return unknown;
}

// Grey or red, green and blue from the darkest to the brightest half percent, as a bitmap; null once overtaken.
async function stretched(values, width, height, pace) {
  const colours = values.length / (width * height), line = width * colours;
  let step = Math.ceil(values.length / 10_000);
  while (step > 1 && (line % step === 0 || step % width === 0 || (colours > 1 && step % colours === 0))) step++;   // else few columns, or one colour, would stand for all
  const some = Float32Array.from({ length: Math.ceil(values.length / step) }, (_, index) => values[step * index]).sort();
  const low = some[Math.floor(some.length / 200)], gain = 255 / (some[Math.ceil(some.length * 199 / 200) - 1] - low || 1);
  const pixels = new ImageData(width, height), grey = new Uint8ClampedArray(3), whole = new Uint32Array(pixels.data.buffer);
  for (let index = 0; index < whole.length; index++) {
    if (index % BLOCK === 0 && pace.due && !await pace.rest()) return null;
    for (let c = 0; c < 3; c++) grey[c] = (values[colours * index + c % colours] - low) * gain;
    whole[index] = 0xff << 24 | grey[2] << 16 | grey[1] << 8 | grey[0];   // red is the lowest byte wherever browsers run
  }
  return createImageBitmap(pixels);
}

// Canvases keep no colour of what is transparent.
function opaque(bitmap) {
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer);
  return pixels.every((pixel) => pixel >= 0xff000000);   // opacity is the highest byte wherever browsers run
}
