"use strict";
// Pictures in the browser: how large one is, and what it looks like, without asking the service.

const MOST_PAGES = 1000;     // that are counted for a forecast
const MOST_TEXT = 1 << 20;   // bytes of a description that are read for it
const MOST_READ = 1 << 28;   // bytes of a TIFF that are read to show it
const MOST_SHOWN = 1 << 25;  // pixels that are drawn, or decoded here: more would keep the page from answering for seconds
const LONGEST_SHOWN = 32767; // pixels of an edge: the longest that every browser draws
const MOST_DECODED = 1 << 27;   // pixels that the browser may decode, four bytes each, to draw fewer
const PNG = 0x8950, JPEG = 0xffd8, TIFFS = [0x4949, 0x4d4d], NUMPY = 0x934e;   // first two bytes
const TAGS = new Set([256, 257, 258, 259, 262, 266, 270, 273, 277, 278, 279, 317, 322, 323, 324, 325, 339]);   // that tiffPlane reads

async function slice(file, at, length) {
  return new DataView(await file.slice(at, at + length).arrayBuffer());
}

// Height, width and planes by a file's header, for a forecast; null where that does not say it plainly.
async function measured(file) {
  const start = await slice(file, 0, 1024), signature = start.getUint16(0);
  if (signature === PNG) return { height: start.getUint32(20), width: start.getUint32(16), planes: 1 };
  if (signature === JPEG) return measuredJpeg(file);
  if (signature === NUMPY) {
    const text = new TextDecoder("latin1").decode(start);
    const shape = /'shape': \(([\d, ]+)\)/.exec(text)[1].split(",").filter((part) => part.trim()).map(Number);
    if (shape.length > 2 && shape.at(-1) <= 4) shape.pop();   // channels
    const [width, height] = [shape.pop(), shape.pop()];
    return { height, width, planes: shape.reduce((product, length) => product * length, 1) };
  }
  return TIFFS.includes(signature) ? measuredTiff(file, start) : null;
}

// JPEG, ITU-T T.81: the size is in the frame header, before which there are other segments.
async function measuredJpeg(file) {
  for (let at = 2, left = MOST_PAGES; left; left--) {
    const head = await slice(file, at, 9), marker = head.getUint16(0);
    if (marker >= 0xffc0 && marker <= 0xffcf && ![0xffc4, 0xffc8, 0xffcc].includes(marker)) return { height: head.getUint16(5), width: head.getUint16(7), planes: 1 };
    at += 2 + head.getUint16(2);
  }
  return null;
}

// TIFF 6.0 and BigTIFF: the first directory's size, and how many there are of it.
async function measuredTiff(file, start) {
  const little = start.getUint16(0) === 0x4949, big = start.getUint16(2, little) === 43;
  const word = (view, at, type = 16) => big && type === 16 ? Number(view.getBigUint64(at, little)) : view.getUint32(at, little);
  const entry = big ? 20 : 12, counted = big ? 8 : 2;
  let size = null, planes = 0, channels = 1;
  const seen = new Set();
  for (let at = word(start, big ? 8 : 4); at && seen.size < MOST_PAGES; ) {
    if (seen.has(at)) return null;   // runs in a circle; the service refuses it
    seen.add(at);
    const count = await slice(file, at, counted), number = big ? word(count, 0) : count.getUint16(0, little);
    if (number > 0xffff) return null;
    const directory = await slice(file, at + counted, number * entry + (big ? 8 : 4)), found = new Map();
    for (let i = 0; i < number; i++) {
      const here = i * entry, type = directory.getUint16(here + 2, little), short = type === 3, value = here + (big ? 12 : 8);
      found.set(directory.getUint16(here, little), {
        value: short ? directory.getUint16(value, little) : word(directory, value, type === 4 ? 4 : 16),
        length: word(directory, here + 4),
      });
    }
    const [height, width] = [found.get(257).value, found.get(256).value];
    if (!size) {
      size = { height, width };
      const text = found.get(270) && new TextDecoder("latin1").decode(await slice(file, found.get(270).value, Math.min(found.get(270).length, MOST_TEXT)));
      const samples = found.get(277)?.value ?? 1, ome = /SizeC="(\d+)"/.exec(text)?.[1];
      channels = Number(/^channels=(\d+)/m.exec(text)?.[1] ?? (ome ? ome / samples : 1));   // OME-XML counts samples
      const images = text?.startsWith("ImageJ=") && /^images=(\d+)/m.exec(text)?.[1];
      const depth = found.get(258), bits = depth?.length <= (big ? 4 : 2) ? depth.value : 8;   // else it is where they are
      // ImageJ writes one directory for a stack of more than 4 GiB, and its pixels one after the other
      if (images && file.size >= images * height * width * samples * bits / 8) return { ...size, planes: Math.max(1, images / channels) };
    }
    if (height === size.height && width === size.width) planes++;
    at = word(directory, number * entry);
  }
  return { ...size, planes: Math.max(1, Math.round(planes / channels)) };
}

// What of an image is drawn: each step-th pixel of each step-th row, as few as browsers take.
function reduced([height, width]) {
  for (let step = Math.ceil(Math.max(height, width) / LONGEST_SHOWN); ; step++) {
    const [across, down] = [Math.ceil(width / step), Math.ceil(height / step)];
    if (across * down <= MOST_SHOWN) return { step, across, down };
  }
}

// The picture to lie under the objects, or why there is none.
async function decoded(file, answer, plane) {
  const unknown = { why: "this browser does not show such a file" }, tooLarge = { why: "the picture is too large to be shown here" };
  const signature = await slice(file, 0, 2).then((start) => start.getUint16(0)).catch(() => 0), isTiff = TIFFS.includes(signature);
  if (!isTiff && signature !== PNG && signature !== JPEG) return unknown;
  const noted = (words) => answer.receipt.input.notes.some((note) => words.test(note));
  if (noted(/orientation/i)) return { why: "browsers turn such a picture by the orientation in it and the service does not" };
  const [height, width] = answer.size, { across, down } = reduced(answer.size);
  if (height * width > MOST_DECODED) return tooLarge;
  let bitmap = await createImageBitmap(file, { resizeWidth: across, resizeHeight: down }).catch(() => null);
  if (bitmap) return !noted(/alpha channel|transparency/) || opaque(bitmap) ? { bitmap } : { why: "parts of the picture are transparent, which the net does not see" };
  if (!isTiff) return unknown;
  if (height * width > MOST_SHOWN || file.size > MOST_READ) return tooLarge;
  bitmap = await tiffPlane(file, plane, answer).catch(() => null);
  return bitmap ? { bitmap } : unknown;
}

// Canvases keep no colour of what is transparent.
function opaque(bitmap) {
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = new Uint32Array(context.getImageData(0, 0, bitmap.width, bitmap.height).data.buffer);
  return pixels.every((pixel) => pixel >= 0xff000000);   // opacity is the highest byte wherever browsers run
}

// LZW of TIFF 6.0, section 13: codes of 9 to 12 bits, the highest first; null where the bits run the other way.
function unpackLzw(packed, length) {
  if (packed[0] === 0 && packed[1] & 1) return null;   // as before TIFF 5
  const unpacked = new Uint8Array(length), prefix = new Uint16Array(4097), last = new Uint8Array(4097), size = new Uint16Array(4097);
  for (let code = 0; code < 256; code++) [last[code], size[code]] = [code, 1];
  let width = 9, next = 258, before = -1, at = 0, held = 0, bits = 0;
  const write = (code) => {   // from its end
    for (let place = at + size[code] - 1; place >= at; place--, code = prefix[code]) unpacked[place] = last[code];
  };
  for (const byte of packed) {
    held = (held << 8 | byte) & 0xffffff;
    bits += 8;
    if (bits < width) continue;
    bits -= width;
    const code = held >> bits & (1 << width) - 1;
    if (code === 257 || at >= length) break;
    if (code === 256) {
      [width, next, before] = [9, 258, -1];
      continue;
    }
    const known = before < 0 || code < next, repeated = known ? code : before;
    write(repeated);
    const first = unpacked[at];
    at += size[repeated];
    if (!known) unpacked[at++] = first;
    if (before >= 0 && next < 4096) {
      [prefix[next], last[next], size[next]] = [before, first, size[before] + 1];
      next++;
    }
    if (next === (1 << width) - 1 && width < 12) width++;
    before = code;
  }
  return unpacked;
}

// One plane of a grey TIFF in strips or tiles, plain, deflated or LZW (TIFF 6.0); null where the file is of another kind.
async function tiffPlane(file, plane, answer) {
  if (answer.stack_axes?.length > 1) return null;
  const buffer = await file.arrayBuffer(), view = new DataView(buffer), little = view.getUint16(0) === 0x4949;
  const short = (at) => view.getUint16(at, little), long = (at) => view.getUint32(at, little);
  if (short(2) !== 42) return null;
  const directories = [];
  for (let at = long(4); at && directories.length < 10_000; at = long(at + 2 + 12 * short(at))) directories.push(at);
  const tagsOf = (directory) => {
    const tags = new Map();
    for (let left = short(directory), at = directory + 2; left; left--, at += 12) {
      const type = short(at + 2), size = { 2: 1, 3: 2, 4: 4 }[type], number = type === 2 ? Math.min(long(at + 4), 7) : long(at + 4);
      if (!size || !TAGS.has(short(at))) continue;
      const first = size * long(at + 4) > 4 ? long(at + 8) : at + 8, read = { 1: (place) => view.getUint8(place), 2: short, 4: long }[size];
      tags.set(short(at), Array.from({ length: number }, (_, index) => read(first + size * index)));
    }
    return tags;
  };
  const { input, output } = answer.receipt, planes = answer.planes?.length ?? 1;
  const perPlane = directories.length / planes, text = String.fromCharCode(...tagsOf(directories[0]).get(270) ?? []), isImageJ = text === "ImageJ=";
  if (directories.length > 1 && text.startsWith("<")) return null;   // OME-XML may put pages into any order
  if (perPlane !== 1 && !(isImageJ && perPlane === input.channels)) return null;   // there channels run fastest
  if (perPlane !== 1 && !(output.axes ?? "CYX").endsWith("CYX")) return null;
  const tags = tagsOf(directories[plane * perPlane + (perPlane > 1 ? output.channel : 0)]);
  const one = (tag, otherwise) => tags.get(tag)?.[0] ?? otherwise;
  const [height, width] = answer.size, bits = one(258, 1), packing = one(259, 1), differences = one(317, 1) === 2;
  const type = { "1,8": "Uint8", "1,16": "Uint16", "2,16": "Int16", "3,32": "Float32" }[`${one(339, 1)},${bits}`];
  const plain = [1, 5, 8, 32946].includes(packing) && one(277, 1) === 1 && one(262) === 1 && one(266, 1) === 1 && (one(317, 1) === 1 || (differences && type !== "Float32"));
  if (!type || !plain || one(256) !== width || one(257) !== height) return null;
  const across = one(322, width), down = one(323, Math.min(one(278, height), height)), columns = Math.ceil(width / across);
  const starts = tags.get(324) ?? tags.get(273), lengths = tags.get(325) ?? tags.get(279), values = new Float32Array(width * height);
  if (across * down > 4 * Math.max(width * height, 1 << 20)) return null;   // most of it would be beyond the image
  let rested = performance.now();
  for (const [index, start] of starts.slice(0, columns * Math.ceil(height / down)).entries()) {
    let bytes = new Uint8Array(buffer, start, lengths[index]);
    if (packing === 5) bytes = unpackLzw(bytes, across * down * bits / 8);
    else if (packing !== 1) bytes = new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
    if (!bytes) return null;
    const part = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), left = index % columns * across, top = Math.floor(index / columns) * down;
    const line = new globalThis[`${type}Array`](across);   // sums of differences wrap around in it
    const read = part[`get${type}`].bind(part);
    for (let y = 0; y < down && top + y < height; y++) {
      if (performance.now() - rested > 50) {   // ms; the page answers meanwhile
        await new Promise((resume) => setTimeout(resume));
        rested = performance.now();
      }
      if ((y + 1) * across * bits / 8 > part.byteLength) return null;
      for (let x = 0; x < across && left + x < width; x++) {
        line[x] = read((y * across + x) * bits / 8, little);
        if (differences && x) line[x] += line[x - 1];
      }
      values.set(line.subarray(0, Math.min(across, width - left)), (top + y) * width + left);
    }
  }
  let step = Math.ceil(values.length / 10_000);
  while (step > 1 && (width % step === 0 || step % width === 0)) step++;   // else few columns would stand for all
  const some = Float32Array.from({ length: Math.ceil(values.length / step) }, (_, index) => values[step * index]).sort();
  const low = some[Math.floor(some.length / 200)], gain = 255 / (some[Math.ceil(some.length * 199 / 200) - 1] - low || 1);
  const pixels = new ImageData(width, height), grey = new Uint8ClampedArray(1), whole = new Uint32Array(pixels.data.buffer);
  for (let index = 0; index < values.length; index++) {
    grey[0] = (values[index] - low) * gain;
    whole[index] = 0xff << 24 | 0x010101 * grey[0];   // red is the lowest byte wherever browsers run
  }
  return createImageBitmap(pixels);
}
