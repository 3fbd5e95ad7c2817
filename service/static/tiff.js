"use strict";
// TIFF 6.0 and BigTIFF, read by slices: a stack may be larger than what a browser can hold.

const DIRECTORY = 1024;      // bytes that hold most directories
const READ_AHEAD = 1 << 20;  // bytes that are read at once where strips are smaller
const MOST_READ = 1 << 28;   // bytes of one plane that are read to show it
const MOST_PLANES = 10_000;  // pages that are gone through to find one
const BYTES = { 2: 1, 3: 2, 4: 4, 16: 8 };   // of a value by its type: text and whole numbers
const places = new WeakMap();   // where the directories of a File are

// How numbers are written in a TIFF, and where its first directory is.
async function tiffHead(file) {
  const start = await slice(file, 0, 16), little = start.getUint16(0) === 0x4949, big = start.getUint16(2, little) === 43;
  const word = (view, at) => big ? Number(view.getBigUint64(at, little)) : view.getUint32(at, little);
  return { little, big, word, first: word(start, big ? 8 : 4) };
}

// A directory: where the next one is, and for each tag the type, the length and the place of its values.
async function directoryAt(file, { little, big, word }, at) {
  const counted = big ? 8 : 2, entry = big ? 20 : 12;
  let view = await slice(file, at, DIRECTORY);
  const number = big ? word(view, 0) : view.getUint16(0, little), end = counted + number * entry, tags = new Map();
  if (number > 0xffff) throw new Error("no directory");
  if (end + 8 > view.byteLength) view = await slice(file, at, end + 8);
  for (let here = counted; here < end; here += entry) {
    tags.set(view.getUint16(here, little), { type: view.getUint16(here + 2, little), length: word(view, here + 4), view, at: here + (big ? 12 : 8) });
  }
  return { at, tags, next: word(view, end) };
}

// Its directories from the first on; null in place of one that has been before, which ends them.
async function* directoriesOf(file, head, most) {
  const seen = new Set();
  for (let at = head.first; at && seen.size < most; ) {
    if (seen.has(at)) {
      yield null;
      return;
    }
    seen.add(at);
    const directory = await directoryAt(file, head, at);
    yield directory;
    at = directory.next;
  }
}

// The values of a tag, or the first ones; none where there is no such tag, or none of text or whole numbers.
async function valuesOf(file, { little, big, word }, tag, most = Infinity) {
  const size = BYTES[tag?.type], length = size ? Math.min(tag.length, most) : 0, within = size * tag?.length <= (big ? 8 : 4);
  if (!length) return [];
  const view = within ? tag.view : await slice(file, word(tag.view, tag.at), size * length), first = within ? tag.at : 0;
  const read = { 1: (at) => view.getUint8(at), 2: (at) => view.getUint16(at, little), 4: (at) => view.getUint32(at, little), 8: (at) => word(view, at) }[size];
  return Array.from({ length }, (_, index) => read(first + size * index));
}

async function placesOf(file, head) {
  if (!places.has(file)) {
    const found = [];
    for await (const directory of directoriesOf(file, head, MOST_PLANES)) found.push(directory.at);
    places.set(file, found);
  }
  return places.get(file);
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

// Each step-th pixel of each step-th row of one plane of a grey TIFF in strips or tiles, plain, deflated or LZW; null where the file is of another kind, or once the plane is overtaken.
async function tiffPlane(file, plane, answer, overtaken) {
  if (answer.stack_axes?.length > 1) return null;
  const head = await tiffHead(file), found = await placesOf(file, head), { little } = head;
  const tagsOf = async (at) => (await directoryAt(file, head, at)).tags;
  const { input, output } = answer.receipt, planes = answer.planes?.length ?? 1, perPlane = found.length / planes;
  const text = String.fromCharCode(...await valuesOf(file, head, (await tagsOf(found[0])).get(270), 7)), isImageJ = text === "ImageJ=";
  if (found.length > 1 && text.startsWith("<")) return null;   // OME-XML may put pages into any order
  if (perPlane !== 1 && !(isImageJ && perPlane === input.channels)) return null;   // there channels run fastest
  if (perPlane !== 1 && !(output.axes ?? "CYX").endsWith("CYX")) return null;
  const tags = await tagsOf(found[plane * perPlane + (perPlane > 1 ? output.channel : 0)]);
  const all = (tag) => valuesOf(file, head, tags.get(tag)), one = async (tag, otherwise) => (await valuesOf(file, head, tags.get(tag), 1))[0] ?? otherwise;
  const [height, width] = answer.size, bits = await one(258, 1), packing = await one(259, 1), predictor = await one(317, 1), differences = predictor === 2;
  const type = { "1,8": "Uint8", "1,16": "Uint16", "2,16": "Int16", "3,32": "Float32" }[`${await one(339, 1)},${bits}`];
  const plain = [1, 5, 8, 32946].includes(packing) && await one(277, 1) === 1 && await one(262) === 1 && await one(266, 1) === 1;
  if (!type || !plain || !(predictor === 1 || (differences && type !== "Float32"))) return null;
  if (await one(256) !== width || await one(257) !== height) return null;
  const across = await one(322, width), down = await one(323, Math.min(await one(278, height), height)), columns = Math.ceil(width / across);
  if (across * down > 4 * Math.max(width * height, 1 << 20)) return null;   // most of it would be beyond the image
  const parts = columns * Math.ceil(height / down), isTiled = tags.has(324);
  const starts = (await all(isTiled ? 324 : 273)).slice(0, parts), lengths = (await all(isTiled ? 325 : 279)).slice(0, parts);
  if (lengths.reduce((sum, length) => sum + length, 0) > MOST_READ) return null;
  const shown = reduced(answer.size), { step } = shown, pace = new Pace(overtaken);
  const values = new Float32Array(shown.across * shown.down), line = new globalThis[`${type}Array`](across);   // sums of differences wrap around in it
  let held = new ArrayBuffer(0), from = 0;
  for (const [index, start] of starts.entries()) {
    if (start < from || start + lengths[index] > from + held.byteLength) {
      from = start;
      held = await file.slice(start, start + Math.max(lengths[index], READ_AHEAD)).arrayBuffer();
    }
    let bytes = new Uint8Array(held, start - from, lengths[index]);
    if (packing === 5) bytes = unpackLzw(bytes, across * down * bits / 8);
    else if (packing !== 1) bytes = new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
    if (!bytes) return null;
    const part = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), left = index % columns * across, top = Math.floor(index / columns) * down;
    const read = part[`get${type}`].bind(part);
    for (let y = 0; y < down && top + y < height; y++) {
      if (pace.due && !await pace.rest()) return null;
      if ((y + 1) * across * bits / 8 > part.byteLength) return null;
      if ((top + y) % step) continue;
      for (let x = 0; x < across && left + x < width; x++) {
        line[x] = read((y * across + x) * bits / 8, little);
        if (differences && x) line[x] += line[x - 1];
      }
      const row = (top + y) / step * shown.across;
      for (let x = (step - left % step) % step; x < across && left + x < width; x += step) values[row + (left + x) / step] = line[x];
    }
  }
  return stretched(values, shown.across, shown.down, pace);
}
