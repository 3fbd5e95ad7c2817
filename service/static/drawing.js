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
function stretch(pixels) {
  const counted = new Uint32Array(256);
  for (let at = 0; at < pixels.length; at += 4) counted[Math.max(pixels[at], pixels[at + 1], pixels[at + 2])]++;
  const ignored = pixels.length / 4 / 200;
  let low = 0, high = 255;
  for (let seen = counted[low]; seen <= ignored; seen += counted[++low]);
  for (let seen = counted[high]; seen <= ignored && high > low + 1; seen += counted[--high]);
  const gain = 255 / Math.max(1, high - low);
  for (let at = 0; at < pixels.length; at++) if (at % 4 < 3) pixels[at] = (pixels[at] - low) * gain;
}

function draw() {
  if (!result) return;
  const [height, width] = result.size, { step, across, down } = reduced(result.size);
  const canvas = $("canvas"), context = canvas.getContext("2d", { willReadFrequently: true });
  canvas.width = across;
  canvas.height = down;
  $("stage").hidden = $("zoom").hidden = false;
  $("zoom").textContent = step > 1 ? `Largest, 1:${step}` : "Each pixel as it is";   // canvases have a limit
  canvas.title = `Click: ${step > 1 ? `the largest, 1:${step}` : "each pixel as it is"}, or all of the image`;
  const enlarged = Math.max(2, Math.ceil(128 / Math.max(across, down)));   // small ones
  canvas.style.width = canvas.classList.contains("whole") ? "" : `min(${enlarged * across}px, ${80 * across / down}vh)`;
  context.fillStyle = "#000";
  context.fillRect(0, 0, across, down);
  if (backdrop) context.drawImage(backdrop, 0, 0, across, down);
  const pixels = context.getImageData(0, 0, across, down);
  if (backdrop) stretch(pixels.data);
  const opacity = backdrop ? Number($("opacity").value) : 1;
  const objects = result.planes ? result.planes[shown - 1].objects : result.objects;
  let area = 0;
  for (const entry of objects) {
    const tint = colour(entry.label ?? entry.class_index);   // of a linked object in all planes
    area += entry.area;
    let at = 0, inside = false;
    for (const length of counts(entry.segmentation.counts)) {
      const end = at + length;
      for (let x = Math.floor(at / height); inside && x * height < end; x++) {   // runs go down the columns
        if (x % step) continue;
        const bottom = Math.min(end - x * height, height);
        for (let y = step * Math.ceil(Math.max(0, at - x * height) / step); y < bottom; y += step) {
          const place = 4 * (y / step * across + x / step);
          for (let c = 0; c < 3; c++) pixels.data[place + c] += opacity * (tint[c] - pixels.data[place + c]);
        }
      }
      at = end;
      inside = !inside;
    }
  }
  context.putImageData(pixels, 0, 0);
  const share = (100 * area / (width * height)).toFixed(1);
  const linked = result.receipt.output.linked_objects;
  const what = result.output === "labels"
    ? `${objects.length} objects${linked === undefined ? "" : ` of ${linked}`}, ${objects.length ? Math.round(area / objects.length) : 0} px on average`
    : objects.map((entry) => `${entry.class}: ${entry.area} px`).join(", ");
  const where = (step > 1 ? `shown 1:${step} · ` : "") + (result.planes ? `plane ${shown} of ${result.planes.length} · ` : "");
  $("facts").textContent = `${width} × ${height} px · ${where}${what} · ${share} % of the image`;
}
