"use strict";
// The answer on the canvas: objects coloured over the picture, and their figures.

// COCO's compressed counts: six bits per character, five of them value, signed, differences from the last but one
function counts(text) {
  const found = [];
  for (let at = 0; at < text.length;) {
    let value = 0, shift = 0, bits;
    do {
      bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32);
    if ((bits & 16) && shift < 32) value |= -1 << shift;
    if (found.length > 2) value += found[found.length - 2];
    found.push(value);
  }
  return found;
}

function colour(number) {   // hues a golden angle apart, so that neighbours in number differ
  const hue = (number * 137.508) % 360, f = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (0.55 - 0.45 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [f(0), f(8), f(4)];
}

// 16 bit images mostly use the lowest few bits: grey from the darkest to the brightest half percent, all channels alike
async function stretch(pixels, pace) {
  const counted = new Uint32Array(256), most = 4 * BLOCK;
  for (let at = 0; at < pixels.length; at += 4) {
    if (at % most === 0 && pace.due && !await pace.rest()) return;
    counted[Math.max(pixels[at], pixels[at + 1], pixels[at + 2])]++;
  }
  const ignored = pixels.length / 4 / 200;
  let low = 0, high = 255;
  for (let seen = counted[low]; seen <= ignored; seen += counted[++low]);
  for (let seen = counted[high]; seen <= ignored && high > low + 1; seen += counted[--high]);
  const gain = 255 / Math.max(1, high - low);
  for (let at = 0; at < pixels.length; at++) {
    if (at % most === 0 && pace.due && !await pace.rest()) return;
    if (at % 4 < 3) pixels[at] = (pixels[at] - low) * gain;
  }
}

function objectsOf(answer, plane) {
  return answer.planes ? answer.planes[plane].objects : answer.objects;
}

// What is drawn of a plane, made once: the picture, and over it the objects in their colours; null once overtaken.
async function layersOf(answer, plane, bitmap, overtaken) {
  const [height] = answer.size, { step, across, down } = reduced(answer.size), pace = new Pace(overtaken);
  const layer = () => {
    const context = new OffscreenCanvas(across, down).getContext("2d", { willReadFrequently: true });
    return { context, pixels: context.getImageData(0, 0, across, down) };
  };
  let ground = null;
  if (bitmap) {
    ground = layer();
    ground.context.drawImage(bitmap, 0, 0, across, down);
    ground.pixels = ground.context.getImageData(0, 0, across, down);
    await stretch(ground.pixels.data, pace);
    ground.context.putImageData(ground.pixels, 0, 0);
  }
  const objects = layer(), whole = new Uint32Array(objects.pixels.data.buffer);
  for (const entry of objectsOf(answer, plane)) {
    const [red, green, blue] = colour(entry.label ?? entry.class_index);   // of a linked object in all planes
    const tint = 0xff << 24 | blue << 16 | green << 8 | red;   // red is the lowest byte wherever browsers run
    let at = 0, inside = false;
    for (const length of counts(entry.segmentation.counts)) {
      const end = at + length;
      for (let x = Math.floor(at / height); inside && x * height < end; x++) {   // runs go down the columns
        if (x % step) continue;
        if (pace.due && !await pace.rest()) return null;
        const bottom = Math.min(end - x * height, height);
        for (let y = step * Math.ceil(Math.max(0, at - x * height) / step); y < bottom; y += step) whole[y / step * across + x / step] = tint;
      }
      at = end;
      inside = !inside;
    }
  }
  objects.context.putImageData(objects.pixels, 0, 0);
  return overtaken() ? null : { ground: ground?.context.canvas ?? null, objects: objects.context.canvas };
}

let frame = 0;   // that is asked for

function drawSoon() {   // once for all that changes until the browser shows it
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    draw();
  });
}

function draw() {
  if (!result) return;
  const [height, width] = result.size, { step, across, down } = reduced(result.size);
  const canvas = $("canvas"), context = canvas.getContext("2d", { willReadFrequently: true });
  if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
  $("stage").hidden = $("zoom").hidden = false;
  $("zoom").textContent = step > 1 ? `Largest, 1:${step}` : "Each pixel as it is";   // canvases have a limit
  canvas.title = `Click: ${step > 1 ? `the largest, 1:${step}` : "each pixel as it is"}, or all of the image`;
  const enlarged = Math.max(2, Math.ceil(128 / Math.max(across, down)));   // small ones
  canvas.style.width = canvas.classList.contains("whole") ? "" : `min(${enlarged * across}px, ${80 * across / down}vh)`;
  context.globalAlpha = 1;
  context.fillStyle = "#000";
  context.fillRect(0, 0, across, down);
  if (layers.ground) context.drawImage(layers.ground, 0, 0);
  context.globalAlpha = layers.ground ? Number($("opacity").value) : 1;
  context.drawImage(layers.objects, 0, 0);
  const objects = objectsOf(result, shown - 1), area = objects.reduce((sum, entry) => sum + entry.area, 0);
  const share = (100 * area / (width * height)).toFixed(1);
  const linked = result.receipt.output.linked_objects;
  const what = result.output === "labels"
    ? `${objects.length} object${objects.length === 1 ? "" : "s"}${linked === undefined ? "" : ` of ${linked}`}, ${objects.length ? Math.round(area / objects.length) : 0} px on average`
    : objects.map((entry) => `${entry.class}: ${entry.area} px`).join(", ");
  const where = (step > 1 ? `shown 1:${step} · ` : "") + (result.planes ? `plane ${shown} of ${result.planes.length} · ` : "");
  $("facts").textContent = `${width} × ${height} px · ${where}${what} · ${share} % of the image`;
}
