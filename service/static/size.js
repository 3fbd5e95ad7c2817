"use strict";
// How large a picture is, by its header and without asking the service.

const MOST_PAGES = 1000;     // that are counted for a forecast
const MOST_TEXT = 1 << 20;   // bytes of a description that are read for it
const PNG = 0x8950, JPEG = 0xffd8, BMP = 0x424d, TIFFS = [0x4949, 0x4d4d], NUMPY = 0x934e;   // first two bytes

async function slice(file, at, length) {
  return new DataView(await file.slice(at, at + length).arrayBuffer());
}

// Height, width and planes by a file's header, for a forecast; null where that does not say it plainly.
async function measured(file) {
  const start = await slice(file, 0, 1024), signature = start.getUint16(0);
  if (signature === PNG) return { height: start.getUint32(20), width: start.getUint32(16), planes: 1 };
  if (signature === JPEG) return measuredJpeg(file);
  if (signature === BMP) {   // in its first version sides have 16 bits; a negative height counts from the top
    const isFirst = start.getUint32(14, true) === 12;
    const [width, height] = isFirst ? [start.getUint16(18, true), start.getUint16(20, true)] : [start.getInt32(18, true), start.getInt32(22, true)];
    return { height: Math.abs(height), width, planes: 1 };
  }
  if (signature === NUMPY) {
    const text = new TextDecoder("latin1").decode(start);
    const shape = /'shape': \(([\d, ]+)\)/.exec(text)[1].split(",").filter((part) => part.trim()).map(Number);
    if (shape.length > 2 && shape.at(-1) <= 4) shape.pop();   // channels
    const [width, height] = [shape.pop(), shape.pop()];
    return { height, width, planes: shape.reduce((product, length) => product * length, 1) };
  }
  return TIFFS.includes(signature) ? measuredTiff(file) : null;
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

// A TIFF: the first directory's size, and how many there are of it.
async function measuredTiff(file) {
  const head = await tiffHead(file);
  let size = null, planes = 0, channels = 1;
  for await (const directory of directoriesOf(file, head, MOST_PAGES)) {
    if (!directory) return null;   // the service refuses it
    const one = async (tag) => (await valuesOf(file, head, directory.tags.get(tag), 1))[0];
    const [height, width] = [await one(257), await one(256)];
    if (!size) {
      size = { height, width };
      const text = new TextDecoder("latin1").decode(Uint8Array.from(await valuesOf(file, head, directory.tags.get(270), MOST_TEXT)));
      const samples = await one(277) ?? 1, ome = /SizeC="(\d+)"/.exec(text)?.[1];
      channels = Number(/^channels=(\d+)/m.exec(text)?.[1] ?? (ome ? ome / samples : 1));   // OME-XML counts samples
      const images = text.startsWith("ImageJ=") && /^images=(\d+)/m.exec(text)?.[1], bits = await one(258) ?? 8;
      // ImageJ writes one directory for a stack of more than 4 GiB, and its pixels one after the other
      if (images && file.size >= images * height * width * samples * bits / 8) return { ...size, planes: Math.max(1, images / channels) };
    }
    if (height === size.height && width === size.width) planes++;
  }
  return { ...size, planes: Math.max(1, Math.round(planes / channels)) };
}
