"use strict";
// The page: chosen file and options, the request, and what the service answers.

const $ = (id) => document.getElementById(id);
const FORMATS = { tiff: "TIFF", png: "PNG", geojson: "QuPath GeoJSON", rois: "ImageJ ROIs", coco: "COCO JSON", rle: "run lengths (JSON)", npy: "NumPy .npy" };
let image = null;      // the chosen File
let backdrop = null;   // ImageBitmap of it, where the browser can decode it
let result = null;     // JSON of the last answer
let running = null;    // AbortController of the request in work

function say(text, problem = false) {
  $("status").textContent = text;
  $("status").classList.toggle("problem", problem);
}

function query(path, given, names) {
  given.output = $("output").value;
  for (const name of names) if ($(name).value) given[name] = $(name).value;
  if ($("mirror").checked) given.mirror = "true";
  return `${path}?` + new URLSearchParams(given);
}

async function ask(format, signal) {
  const answer = await fetch(query("segment", { format }, ["model", "channel", "threshold", "min_area", "min_score"]), { method: "POST", body: image, signal }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The service does not answer, or the file cannot be read any more.");
  });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.detail || problem.title || `The service answers ${answer.status}.`);
}

// What the service expects to need for the image; null where its size is not known before it is decoded.
async function forecast(signal) {
  const size = await measured(image).catch(() => null);
  if (!size) return null;
  const given = { size: `${size.height}x${size.width}`, planes: size.planes };
  const answer = await fetch(query("plan", given, ["model"]), { signal }).catch(() => null);
  const plan = await answer?.json().catch(() => null), refusal = answer?.status === 413 ? plan : plan?.refusal;
  // only the service knows for sure how the pages of a file make planes, and what its bits take
  if (refusal?.type.endsWith("/image-too-large") && size.planes === 1) throw new Error(refusal.detail);
  return answer?.ok ? plan : null;
}

function duration(seconds) {
  return seconds < 120 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}

function forget() {   // what is shown always belongs to the file and the options that are chosen
  result = backdrop = null;
  $("stage").hidden = $("receipt-box").hidden = $("plane-label").hidden = true;
  $("facts").textContent = "";
  $("download").disabled = true;
}

async function segment() {
  if (!image) return;
  running?.abort();
  const mine = running = new AbortController();
  const started = performance.now();
  say(`Segmenting ${image.name} …`);
  let expected = "";
  const name = image.name;
  const clock = setInterval(() => {
    if (mine.signal.aborted) clearInterval(clock);   // another image's words are not overwritten
    else say(`Segmenting ${name} … ${((performance.now() - started) / 1000).toFixed(1)} s${expected}`);
  }, 100);
  try {
    const plan = await forecast(mine.signal);
    if (plan) expected = ` of about ${duration(plan.expected_seconds)}`;
    const answer = await (await ask("rle", mine.signal)).json();
    const bitmap = await decoded(image, answer, 0);
    if (mine.signal.aborted) return;
    [result, backdrop] = [answer, bitmap];
    const planes = result.planes?.length ?? 1;
    $("plane").max = planes - 1;
    $("plane").value = 0;
    $("plane-label").hidden = planes < 2;
    $("download").disabled = false;
    $("receipt").textContent = JSON.stringify(result.receipt, null, 2);
    $("receipt-box").hidden = false;
    clearInterval(clock);
    say(`Done in ${((performance.now() - started) / 1000).toFixed(2)} s` + (backdrop ? "" : "; this browser does not show such a file, so the result stands alone"));
    draw();
  } catch (error) {
    if (!mine.signal.aborted) {
      forget();
      say(error.message, true);
    }
  } finally {
    clearInterval(clock);
  }
}

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

function draw() {
  if (!result) return;
  const [height, width] = result.size;
  const canvas = $("canvas"), context = canvas.getContext("2d", { willReadFrequently: true });
  canvas.width = width;
  canvas.height = height;
  $("stage").hidden = false;
  canvas.style.width = canvas.classList.contains("whole") ? "" : `min(${2 * width}px, ${80 * width / height}vh)`;   // small ones enlarged
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  if (backdrop) context.drawImage(backdrop, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  if (backdrop) stretch(pixels.data);
  const opacity = backdrop ? Number($("opacity").value) : 1;
  const plane = Number($("plane").value);
  const objects = result.planes ? result.planes[plane].objects : result.objects;
  let area = 0;
  for (const [index, entry] of objects.entries()) {
    const tint = colour(index + 1);
    area += entry.area;
    let at = 0, inside = false;
    for (const length of counts(entry.segmentation.counts)) {
      for (let end = at + length; inside && at < end; at++) {   // runs go down the columns
        const place = 4 * ((at % height) * width + Math.floor(at / height));
        for (let c = 0; c < 3; c++) pixels.data[place + c] += opacity * (tint[c] - pixels.data[place + c]);
      }
      if (!inside) at += length;
      inside = !inside;
    }
  }
  context.putImageData(pixels, 0, 0);
  const share = (100 * area / (width * height)).toFixed(1);
  const what = result.output === "labels"
    ? `${objects.length} objects, ${objects.length ? Math.round(area / objects.length) : 0} px on average`
    : objects.map((entry) => `${entry.class}: ${entry.area} px`).join(", ");
  $("facts").textContent = `${width} × ${height} px · ${result.planes ? `plane ${plane + 1} of ${result.planes.length} · ` : ""}${what} · ${share} % of the image`;
}

async function download() {
  try {
    say("Writing the file …");
    const answer = await ask($("format").value);
    const named = /filename="([^"]+)"/.exec(answer.headers.get("content-disposition") ?? "")?.[1] ?? "result";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = image.name.replace(/\.[^.]*$/, "") + "-" + named;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say(`Saved ${link.download}`);
  } catch (error) {
    say(error.message, true);
  }
}

function choose(file) {
  if (!file) return;
  image = file;
  forget();
  segment();
}

async function listModels() {
  for (const [name, title] of Object.entries(FORMATS)) $("format").add(new Option(title, name));
  try {
    const listed = await (await fetch("models")).json();
    for (const model of listed.models) {
      const reference = `${model.name}@${model.version}`;
      $("model").add(new Option(`${model.title} (${reference})`, reference, model.default, model.default));
    }
    if (listed.models.length === 0) say("No model is served yet; readiness says why.", true);
  } catch {
    say("The service does not answer.", true);
  }
}

const drop = $("drop");
drop.addEventListener("click", () => $("file").click());
drop.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") $("file").click(); });
$("file").addEventListener("change", (event) => { choose(event.target.files[0]); event.target.value = ""; });
$("file").addEventListener("click", (event) => event.stopPropagation());
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") choose(event.dataTransfer.files[0]);
  });
}
for (const name of ["model", "output", "channel", "threshold", "min_area", "min_score", "mirror"]) $(name).addEventListener("change", segment);
$("opacity").addEventListener("input", draw);
$("plane").addEventListener("input", async () => {
  const [answer, plane] = [result, Number($("plane").value)];
  const bitmap = answer && await decoded(image, answer, plane);
  if (answer !== result || plane !== Number($("plane").value)) return;
  backdrop = bitmap;
  draw();
});
$("canvas").addEventListener("click", () => { $("canvas").classList.toggle("whole"); draw(); });
$("download").addEventListener("click", download);
$("options").addEventListener("submit", (event) => event.preventDefault());
listModels();
